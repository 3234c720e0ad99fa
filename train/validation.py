"""The loss of held-out rows while a training runs, and the best model so far.

Every rank takes every world-th micro-batch of the same fixed ones, in eval mode; sums over trained tokens are added up, so
the loss does not depend on the number of workers.
"""

import math
import os
from typing import Any

import numpy as np
import torch

from ..store.errors import InputError
from ..store.facts import read_lines
from ..store.files import append_line, write_lines
from .config import TrainConfig
from .data import REFUSED, Batches, Rows, on_engine
from .loss import trained_tokens

LOG = "validation.jsonl"


def held_out(config: TrainConfig) -> tuple[TrainConfig, Rows, int]:
    """Return the config by which held-out rows are read, the rows, and how many were left out: they are trained on.

    Raises:
        InputError: there are none, or all are trained on.
    """
    assert config.validation is not None
    spec = config.validation
    held_config = config.model_copy(
        update={"pool": spec.pool, "image_root": spec.image_root, "picks": None, "cache_mb": 0}
    )
    rows = Rows(held_config)
    if not len(rows.ids):
        raise InputError(f"validation.pool {spec.pool!r}: there are no rows in it.")
    left_out = rows.leave_out(Rows(config).ids)
    if not len(rows.ids):
        raise InputError(f"validation.pool {spec.pool!r}: all its {left_out} rows are trained on, so none is held out.")
    rows.pool.check_images(spec.image_root)
    return held_config, rows, left_out


def count_rows(config: TrainConfig, rows: Rows) -> int:
    """Return how many of the held-out rows are used."""
    assert config.validation is not None
    return min(config.validation.max_rows or len(rows.ids), len(rows.ids))


class Validation:
    """The held-out rows of one training, on one of `world` workers."""

    def __init__(self, config: TrainConfig, processor: Any, out: str, ranks: tuple[int, int]) -> None:
        self.rank, self.world = ranks
        self.micro, self.path = config.micro_batch, os.path.join(out, LOG)
        self.max_refused = config.max_refused
        other, rows, _ = held_out(config)
        count = count_rows(config, rows)
        # evenly over the ids, which are hashes; then rows of like length together, pictures apart from text
        chosen = np.arange(count) * len(rows.ids) // count
        self.positions = chosen[np.lexsort((rows.n_chars[chosen], rows.has_image[chosen]))]
        refused = os.path.join(out, f"validation-{REFUSED}-rank{self.rank}.jsonl")
        self.batches = Batches(other, rows, processor, refused)

    def loss(self, engine: Any) -> float:
        """Return the mean loss a trained token (nats) over the held-out rows; every rank must call this.

        Raises:
            InputError: none of the rows can be used, or more are lost than `max_refused` allows.
        """
        engine.eval()
        # every rank as many passes as any other: ZeRO-3 gathers weights in each
        rounds = math.ceil(len(self.positions) / (self.micro * self.world))
        # loss, trained tokens, rows asked for, rows used
        total = torch.zeros(4, dtype=torch.float64, device=engine.device)
        with torch.no_grad():
            for i in range(rounds):
                begin = (i * self.world + self.rank) * self.micro
                batch = self.batches.make(self.positions[begin : begin + self.micro], normalised=False)
                trained = trained_tokens(batch)
                loss = engine(on_engine(batch, engine, self.batches.encoder))
                counts = [float(loss) * trained, trained, batch["asked"], batch["used"]]
                total += torch.tensor(counts, device=engine.device)
        torch.distributed.all_reduce(total)
        engine.train()
        loss, trained, asked, used = total.tolist()
        if not used or asked - used > self.max_refused * asked:
            raise InputError(
                f"{asked - used:.0f} of {asked:.0f} held-out rows could not be used (max_refused {self.max_refused:.1%}); "
                f"validation-{REFUSED}-rank*.jsonl says which. Mend the validation pool, or set a larger max_refused."
            )
        return loss / trained

    def past(self, first: int, device: Any) -> float:
        """Return the lowest loss up to step `first` (infinite without one), and drop what comes after it from the log."""
        lowest = torch.full((1,), math.inf, dtype=torch.float64, device=device)
        if self.rank == 0 and os.path.isfile(self.path):
            rows = read_lines(self.path, "validation", "Delete it.", step=int, loss=float)
            rows = [row for row in rows if row["step"] <= first]
            write_lines(self.path, rows)
            lowest[0] = min((row["loss"] for row in rows), default=math.inf)
        torch.distributed.broadcast(lowest, 0)
        return float(lowest)

    def note(self, step: int, loss: float) -> None:
        """Write a step's loss to the log."""
        if self.rank == 0:
            append_line(self.path, {"step": step, "loss": loss})
