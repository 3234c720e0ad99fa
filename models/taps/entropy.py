"""Entropy of the next-token distribution at the positions that predict a trained token.

Axes: B rows (samples), L label positions, H hidden, V vocabulary, S words of a slice of it.
"""

from collections.abc import Iterable
from typing import Any

import torch

from ..registry import family_of
from ..specs import LOGIT_BYTES, logit_rows
from .base import Tap
from .forward import is_plain, last_hidden, mean_by_row, on_device, wide

# words whose logits exist at one time; fixed, so that sums over them are always added in one order
SLICE = 4_096


class EntropyTap(Tap):
    """Mean entropy over a row's trained tokens as a feature of width 1, in nats; 0 in a row without one.

    Of the whole vocabulary as the model's softmax has it, words that no tokenizer gives included.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.dim = model, 1

    @torch.no_grad()
    def tensors(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return them; see `Tap`."""
        batch = on_device(batch, self.model)
        rows_L, at_L = batch["label_at"]
        hidden_BTH = last_hidden(self.model, batch)
        entropy_L = entropies(family_of(self.model).head(self.model), hidden_BTH[rows_L, at_L])
        return mean_by_row(entropy_L, rows_L, len(hidden_BTH))[0].float()[:, None]


def entropies(head: Any, hidden_LH: torch.Tensor) -> torch.Tensor:
    """Return the entropies [L] of softmax(head(hidden)), in nats.

    A plain head goes through its words slice by slice: never more than positions × S logits exist, whatever V is. Another
    one (with an adapter, say) is called as it is, on as many positions as the budget of logits holds.
    """
    if is_plain(head):
        parts = hidden_LH.split(LOGIT_BYTES // (4 * SLICE))
        return torch.cat([_streamed(h @ w.T for w in head.weight.split(SLICE)) for h in parts])
    return torch.cat([_streamed([head(h)]) for h in hidden_LH.split(logit_rows(head.out_features))])


def _streamed(slices: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return the entropies [L] of logits that come as slices [L, S] of the vocabulary.

    Entropy = log Σ e^x - Σ x e^x / Σ e^x with x = logit - m; where a slice has a larger logit than all before it, m grows
    and the sums are moved along.
    """
    most_L = sum_L = weighted_L = None
    for logits_LS in slices:
        x_LS = wide(logits_LS)
        top_L = x_LS.amax(-1)
        if most_L is None or sum_L is None or weighted_L is None:
            most_L, sum_L, weighted_L = top_L, torch.zeros_like(top_L), torch.zeros_like(top_L)
        larger_L = torch.maximum(most_L, top_L)
        moved_L = most_L - larger_L
        weighted_L = (weighted_L + moved_L * sum_L) * moved_L.exp()
        sum_L, most_L = sum_L * moved_L.exp(), larger_L
        x_LS = x_LS - larger_L[:, None]
        weights_LS = x_LS.exp()
        sum_L, weighted_L = sum_L + weights_LS.sum(-1), weighted_L + x_LS.mul_(weights_LS).sum(-1)
    assert sum_L is not None
    assert weighted_L is not None
    # rounding may leave a certain word just below 0
    return (sum_L.log() - weighted_L / sum_L).clamp(min=0)
