"""How a token is chosen and where an answer ends, row by row: a batch holds requests that want different things.

A row's draw comes from a random stream of its own, so a seeded answer does not depend on the rows beside it.
Axes: B rows, V words.
"""

import random
from collections.abc import Sequence

import torch
from pydantic import Field
from transformers import LogitsProcessor

from ..store.config import Config


class Sampling(Config):
    """How one answer is generated; the default is greedy."""

    temperature: float = Field(0.0, ge=0, le=10, description="0 takes the likeliest token; above it tokens are drawn.")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw from the likeliest tokens that hold this share together.")
    top_k: int = Field(0, ge=0, description="Draw from this many of the likeliest tokens; 0 is all.")
    max_new_tokens: int = Field(512, ge=1, description="The longest answer, in tokens.")
    stop: tuple[str, ...] = Field((), max_length=16, description="Texts at which an answer ends; they are cut off.")
    seed: int | None = Field(None, description="The draw's random seed; without one each draw is another.")


class Chooser(LogitsProcessor):
    """Leaves of each row's logits the one token that its `Sampling` chooses, for a search that takes the likeliest.

    Rows that became NaN or infinite are remembered: with NaN for every word greedy decoding still "answers", with word 0.
    """

    def __init__(self, samplings: Sequence[Sampling]) -> None:
        self._bad_B: torch.Tensor | None = None
        self._drawn = [i for i, s in enumerate(samplings) if s.temperature > 0]
        self._samplings = [samplings[i] for i in self._drawn]
        # without a seed: from the system
        self._streams = [random.Random(s.seed) for s in self._samplings]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Return the logits [B, V]; a drawn row's are −inf but for one word."""
        # less than all words may be forbidden: −inf is no fault
        bad_B = (scores.isnan() | scores.isposinf()).any(-1)
        self._bad_B = bad_B if self._bad_B is None else self._bad_B | bad_B
        if not self._drawn:
            return scores
        rows = torch.tensor(self._drawn, device=scores.device)
        uniform_D = torch.tensor([s.random() for s in self._streams], dtype=torch.float64, device=scores.device)
        words_D = draw(scores[rows], self._samplings, uniform_D)
        chosen_BV = scores.clone()
        chosen_BV[rows] = -torch.inf
        chosen_BV[rows, words_D] = 0.0
        return chosen_BV

    def bad(self) -> list[bool]:
        """Return the rows [B] that cannot be trusted."""
        assert self._bad_B is not None
        return self._bad_B.tolist()


def draw(scores_DV: torch.Tensor, samplings: Sequence[Sampling], uniform_D: torch.Tensor) -> torch.Tensor:
    """Return a word of each row [D]: where `uniform_D` (float64, in 0 to 1) falls among what its sampling leaves over.

    Temperature comes first, then `top_k`, then `top_p`, as in Hugging Face's `generate`; of `top_p` the word that passes
    the share is still in. NaN counts as impossible.
    """
    heat_D = torch.tensor([s.temperature for s in samplings], dtype=torch.float64, device=scores_DV.device)
    share_D = torch.tensor([s.top_p for s in samplings], dtype=torch.float64, device=scores_DV.device)
    most_D = torch.tensor([s.top_k or scores_DV.shape[1] for s in samplings], device=scores_DV.device)
    # the likeliest first; equal ones by word
    sorted_DV, words_DV = scores_DV.double().nan_to_num(-torch.inf).sort(dim=-1, descending=True, stable=True)
    # the likeliest is 0, so that a small temperature lets nothing overflow
    logits_DV = (sorted_DV - sorted_DV[:, :1]) / heat_D[:, None]
    place_V = torch.arange(logits_DV.shape[1], device=logits_DV.device)
    p_DV = logits_DV.masked_fill(place_V >= most_D[:, None], -torch.inf).softmax(-1)
    before_DV = p_DV.cumsum(-1) - p_DV
    # of a share of 1 nothing is left out, however the sum is rounded
    out_DV = (before_DV >= share_D[:, None]) & (share_D[:, None] < 1)
    total_DV = p_DV.masked_fill(out_DV, 0.0).cumsum(-1)
    taken_D1 = torch.searchsorted(total_DV, uniform_D[:, None] * total_DV[:, -1:], right=True)
    # rounding may lead behind the last word that is left; a row of NaN has none, and any word is as good
    last_D1 = (p_DV.masked_fill(out_DV, 0.0) > 0).sum(-1, keepdim=True).sub(1).clamp(min=0)
    return words_DV.gather(1, torch.minimum(taken_D1, last_D1)).squeeze(1)
