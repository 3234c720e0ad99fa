"""What the taps share: one forward pass, per-sample losses over label positions only, moving a batch.

Axes: B rows (samples), T tokens, H hidden, V vocabulary.
"""

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ..load import base_of


def to_device(batch: dict[str, Any], model: Any) -> dict[str, Any]:
    """Move a collated batch to the model's device; pixels take the model's dtype."""
    first = next(model.parameters())
    moved = {k: v.to(first.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    if moved.get("pixel_values") is not None:
        moved["pixel_values"] = moved["pixel_values"].to(first.dtype)
    return moved


def last_hidden(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Return the last hidden states [B, T, H]; the LM head is not applied."""
    return (
        base_of(model)
        .model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            pixel_values=batch.get("pixel_values"),
            use_cache=False,
        )
        .last_hidden_state
    )


def sample_losses(model: Any, batch: dict[str, Any], hidden_BTH: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each sample's mean cross-entropy over its trained tokens [B], and their counts [B].

    Only positions that predict a label go through the LM head: [labels, V], not [B, T, V]. A sample without a trained
    token has loss 0. This is Hugging Face's loss at batch size 1, not its batch mean (spec: LESS §6.1).
    """
    target_BT = batch["labels"][:, 1:]
    rows, at = torch.nonzero(target_BT != -100, as_tuple=True)
    logits = base_of(model).lm_head(hidden_BTH[rows, at])
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    losses = functional.cross_entropy(logits.to(wide), target_BT[rows, at], reduction="none")
    counts_B = torch.zeros(target_BT.shape[0], dtype=wide, device=losses.device)
    counts_B = counts_B.index_add(0, rows, torch.ones_like(losses))
    sums_B = torch.zeros_like(counts_B).index_add(0, rows, losses)
    return sums_B / counts_B.clamp(min=1), counts_B


class LossTap:
    """Per-sample loss as a feature of width 1."""

    def __init__(self, model: Any) -> None:
        self.model, self.dim = model, 1

    @torch.no_grad()
    def __call__(self, batch: dict[str, Any]) -> np.ndarray[Any, Any]:
        """Return losses [B, 1] in nats a token, float32."""
        batch = to_device(batch, self.model)
        losses_B, _ = sample_losses(self.model, batch, last_hidden(self.model, batch))
        return losses_B.float().cpu().numpy()[:, None]
