"""The module that DeepSpeed wraps: a model with its training loss."""

from typing import Any

import torch
from torch import nn

from ..models.forward import last_hidden, on_device, with_blank
from ..models.registry import family_of


def trained_tokens(batch: dict[str, Any]) -> int:
    """Return how many tokens of a collated batch carry loss: those with a label, of which the first predicts nothing."""
    return int((batch["labels"][:, 1:] != -100).sum())


class LossModule(nn.Module):
    """Cross-entropy over a micro-batch's trained tokens: their mean, or their share of a whole step's mean.

    Only label positions go through the LM head. A batch without a trained token has loss zero, not NaN. A batch without a
    picture sends a blank one through tower and projector and scatters nothing of it: every batch has one and the same
    graph, so gradients become ready in one order on every rank. ZeRO-2 reduces them in buckets by that order; a
    text-only graph of another shape made it add up gradients of different parameters, without an error.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Any], share: float | None = None) -> torch.Tensor:
        """Return the loss, a scalar in float32: the mean (nats a token), or with `share` the sum times it.

        With `share` = micro-batches of the step / its trained tokens, the mean over the step's micro-batches, which is what
        engines take, is the mean over all its trained tokens, however they are spread.
        """
        batch = with_blank(on_device(batch, self.model, places=False), self.model)
        head, hidden_BTH = family_of(self.model).head(self.model), last_hidden(self.model, batch)
        target_BT = batch["labels"][:, 1:]
        rows, columns = batch["label_at"]
        if len(rows):
            logits = head(hidden_BTH[rows, columns]).float()
            kind = "mean" if share is None else "sum"
            loss = nn.functional.cross_entropy(logits, target_BT[rows, columns], reduction=kind)
            loss = loss if share is None else loss * share
        else:
            loss = head(hidden_BTH[:, :1]).float().sum() * 0
        return loss
