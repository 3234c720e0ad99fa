"""What became of the rows of a training while it runs: asked for, used, lost; and when too many are lost to go on."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from ..store.errors import InputError
from ..store.meters import count_refused
from ..store.usage import by_reason
from .config import TrainConfig
from .data import REFUSED, refusals
from .loss import trained_tokens


class Account:
    """Counts over all workers; every worker calls `add` with its micro-batches of each step.

    `rows`: how many different rows the training has; `out`: where its refused rows are listed. A row that is lost in one
    epoch is lost in each, so shares are those of the epoch under way.
    """

    def __init__(self, config: TrainConfig, rows: int, steps: int, device: Any, out: str) -> None:
        self.config, self.device, self.out = config, device, out
        self.planned = min(rows, steps * config.global_batch)
        self.asked = self.lost = self.used = 0

    def add(self, batches: Sequence[dict[str, Any]]) -> int:
        """Add one step's micro-batches of this worker; return the trained tokens of the whole step.

        Raises:
            InputError: not one row could be used so far, or more are lost by now than `max_refused` allows.
        """
        counts = [sum(b["asked"] for b in batches), sum(b["used"] for b in batches), sum(map(trained_tokens, batches))]
        for batch in batches:
            count_refused("train", batch["refused"])
        if self.config.workers > 1:
            everywhere = torch.tensor(counts, dtype=torch.int64, device=self.device)
            torch.distributed.all_reduce(everywhere)
            counts = everywhere.tolist()
        asked, used, trained = counts
        if self.asked + asked > self.planned and self.asked >= self.planned:
            self.asked = self.lost = 0
        self.asked, self.lost, self.used = self.asked + asked, self.lost + asked - used, self.used + used
        if not self.used and (self.config.max_refused < 1 or self.asked >= self.planned):
            raise InputError(f"not one of the first {self.asked} rows could be used {self._way_out()}")
        if self.lost > self.config.max_refused * self.planned:
            raise InputError(
                f"{self.lost} of the first {self.asked} rows could not be used, of {self.planned} in all: more than "
                f"max_refused ({self.config.max_refused:.1%}) {self._way_out()}"
            )
        return trained

    def _way_out(self) -> str:
        reasons = by_reason(Counter(refusals(self.out).values()))
        listed = f"{reasons}; listed in {self.out}/{REFUSED}-rank*.jsonl"
        return f"({listed}). Mend them, or accept the loss with a larger max_refused."
