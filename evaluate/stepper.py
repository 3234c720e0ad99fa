"""Greedy search step by step, for models whose positions are counted: on a GPU each step is one recorded graph.

Hugging Face's `generate` launches some thousand small kernels a step, and at 64 rows waits for them longer than for the
memory that a step must read. Here a step is recorded once for each number of rows and length of the window, on a cache that
is kept. Prompts go through Hugging Face's own forward pass, a few rows at a time.
Axes: B rows (R of them recorded), T prompt tokens (padded on the left), S generated tokens, L positions, V words.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, LogitsProcessor, StoppingCriteria

from ..models.protocol import Family, base_of
from .kept_cache import STEP, KeptCache

# steps between two looks at whether all rows are over: a look waits for the GPU
_LOOK = 8
# rows of which steps are recorded; more go up in this pace
_ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64)
# prompt tokens that go through the model at once
PREFILL = 16_384


def can_step(model: Any, family: Family) -> bool:
    """Say whether a model may be stepped: counted positions, full attention, weights in plain types."""
    config = base_of(model).config.get_text_config()
    plain = getattr(base_of(model), "quantization_method", None) is None
    full = set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
    return family.counted and plain and full and not getattr(config, "sliding_window", None)


@dataclass
class _Step:
    """One recorded step: what it reads, what it writes, and how it is run again."""

    tokens_R1: torch.Tensor
    positions_R1: torch.Tensor
    mask_R11L: torch.Tensor
    logits_RV: torch.Tensor
    graph: Any = None


class Stepper:
    """Searches with one model; what it keeps (cache, recordings) grows to the largest batch seen."""

    def __init__(self, model: Any, family: Family, pad_id: int, ends: list[int]) -> None:
        self.model, self.family, self.pad_id = model, family, pad_id
        self.device = next(model.parameters()).device
        self.ends_E = torch.tensor(ends, dtype=torch.long, device=self.device)
        self.cache: KeptCache | None = None
        self._steps: dict[tuple[int, int], _Step] = {}

    @torch.inference_mode()
    def search(
        self, inputs: dict[str, Any], most: int, chooser: LogitsProcessor, ends: StoppingCriteria | None
    ) -> torch.Tensor:
        """Return the likeliest tokens of what `chooser` leaves over, [B, S] on the CPU; pads behind a row's end."""
        rows, length = inputs["input_ids"].shape
        recorded = next((r for r in _ROWS if r >= rows), -(-rows // 32) * 32)
        window = -(-(length + most) // STEP) * STEP
        cache = self._cache_of(recorded, window)
        logits_BV = self._prefill(inputs, cache)
        step = self._step_of(recorded, window, cache, length)
        self._begin(step, inputs["attention_mask"])
        cache.open(recorded, length, window)
        tokens_BS = torch.full((rows, most), self.pad_id, dtype=torch.long, device=self.device)
        over_B = torch.zeros(rows, dtype=torch.bool, device=self.device)
        for n in range(most):
            # choosers look at logits alone
            chosen_B = chooser(tokens_BS[:, :n], logits_BV).argmax(-1)  # type: ignore[arg-type]
            tokens_BS[:, n] = torch.where(over_B, self.pad_id, chosen_B)
            if ends is not None:
                over_B |= ends(tokens_BS[:, : n + 1], None)  # type: ignore[arg-type]
            over_B |= torch.isin(tokens_BS[:, n], self.ends_E)
            last = n + 1 == most
            if last or ((ends is not None or n % _LOOK == _LOOK - 1) and bool(over_B.all())):
                return tokens_BS[:, : n + 1].cpu()
            step.tokens_R1[:rows, 0] = tokens_BS[:, n]
            self._run(step, cache)
            logits_BV = step.logits_RV[:rows]
        raise ValueError("an answer has at least one token")

    def forget(self) -> None:
        """Let go of what is kept: other prompts and answers come, and both sizes at their largest fit no memory."""
        self._steps.clear()
        self.cache = None

    def _cache_of(self, rows: int, length: int) -> KeptCache:
        """Return a cache of this size at least; a larger one than before makes recordings void."""
        held = (self.cache.rows, self.cache.length) if self.cache else (0, 0)
        if self.cache is None or rows > held[0] or length > held[1]:
            self._steps.clear()
            self.cache = None  # its memory first
            self.cache = KeptCache(max(rows, held[0]), max(length, held[1]), self.device)
        return self.cache

    def _prefill(self, inputs: dict[str, Any], cache: KeptCache) -> torch.Tensor:
        """Put all prompts into the cache, some rows at a time; return the logits of their last tokens, [B, V]."""
        mask_BT, pictures = inputs["attention_mask"], inputs["pictures"]
        rows, length = mask_BT.shape
        passes = -(-rows // max(1, PREFILL // length))
        each, logits, seen = -(-rows // passes), [], 0
        for first in range(0, rows, each):
            some = slice(first, min(first + each, rows))
            shown = sum(pictures[some])
            media = {n: v[seen : seen + shown] for n, v in inputs["media"].items() if shown}
            seen += shown
            asked = {n: inputs[n][some] for n in ("input_ids", "attention_mask")} | media
            prompt = DynamicCache()
            out = base_of(self.model)(
                **asked, position_ids=places(mask_BT[some]), past_key_values=prompt, use_cache=True, logits_to_keep=1
            )
            cache.put(prompt, first)
            logits.append(out.logits[:, -1].float())
        return torch.cat(logits)

    def _begin(self, step: _Step, mask_BT: torch.Tensor) -> None:
        rows, length = mask_BT.shape
        step.mask_R11L.zero_()
        # rows that nobody asks for see one position, so that their softmax is one
        step.mask_R11L[rows:, ..., 0] = True
        step.mask_R11L[:rows, 0, 0, :length] = mask_BT.bool()
        step.tokens_R1.fill_(self.pad_id)
        step.positions_R1.zero_()
        step.positions_R1[:rows] = mask_BT.sum(1, keepdim=True)

    def _step_of(self, rows: int, window: int, cache: KeptCache, length: int) -> _Step:
        if (rows, window) in self._steps:
            return self._steps[rows, window]
        words = self.family.head(self.model).weight.shape[0]
        step = _Step(
            torch.zeros(rows, 1, dtype=torch.long, device=self.device),
            torch.zeros(rows, 1, dtype=torch.long, device=self.device),
            torch.ones(rows, 1, 1, window, dtype=torch.bool, device=self.device),
            torch.zeros(rows, words, dtype=torch.float32, device=self.device),
        )
        cache.open(rows, length, window)
        if self.device.type == "cuda":
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(2):  # libraries make their workspaces before a recording
                    self._compute(step, cache)
                    cache.open(rows, length, window)
            torch.cuda.current_stream().wait_stream(stream)
            step.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(step.graph):
                self._compute(step, cache)
        self._steps[rows, window] = step
        return step

    def _run(self, step: _Step, cache: KeptCache) -> None:
        if step.graph is None:
            self._compute(step, cache)
        else:
            step.graph.replay()
        cache.filled += 1

    def _compute(self, step: _Step, cache: KeptCache) -> None:
        """Read a token of each row, write the logits of the next one, and move on by one position."""
        step.mask_R11L.index_fill_(3, cache.place_1, True)
        embeds_R1H = base_of(self.model).get_input_embeddings()(step.tokens_R1)
        hidden_R1H = self.family.decoder(self.model)(
            inputs_embeds=embeds_R1H,
            attention_mask=step.mask_R11L,
            position_ids=step.positions_R1,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        step.logits_RV.copy_(self.family.head(self.model)(hidden_R1H[:, -1]))
        step.positions_R1 += 1
        cache.place_1 += 1


def places(mask_BT: torch.Tensor) -> torch.Tensor:
    """Return each token's position, counted from its row's first; pads have 0."""
    return (mask_BT.long().cumsum(1) - 1).clamp(min=0)
