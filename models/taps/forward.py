"""What the taps share: per-sample losses over label positions only, and taps that are a forward pass alone.

Axes: B rows (samples), I images, T tokens, L label positions, H hidden, V vocabulary, D the vision tower's width.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from ..forward import decode, embed
from ..forward import last_hidden as last_hidden
from ..forward import on_device as on_device
from ..projections.sink import sums_dtype
from ..protocol import base_of
from ..registry import family_of
from ..specs import Pooling, logit_rows, pooled_width
from .base import Tap


def sample_losses(model: Any, batch: dict[str, Any], hidden_BTH: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each sample's mean cross-entropy over its trained tokens [B], and their counts [B].

    Only positions that predict a label go through the LM head: [L, V], not [B, T, V]. A sample without a trained token has
    loss 0. This is Hugging Face's loss at batch size 1, not its batch mean (spec: LESS §6.1).
    """
    head = family_of(model).head(model)
    rows_L, at_L = batch["label_at"]
    target_L = batch["labels"][:, 1:][rows_L, at_L]
    hidden_LH = hidden_BTH[rows_L, at_L]
    if is_plain(head):
        losses_L = _HeadLoss.apply(hidden_LH, head.weight.detach(), target_L)
    else:
        logits_LV = _by_sample(head, hidden_LH, rows_L, hidden_BTH.shape[0])
        losses_L = functional.cross_entropy(wide(logits_LV), target_L, reduction="none")
    return mean_by_row(losses_L, rows_L, hidden_BTH.shape[0])


def mean_by_row(value_L: torch.Tensor, rows_L: torch.Tensor, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean [B] of the values of each row's label positions, 0 where it has none, and how many it has [B]."""
    counts_B = torch.zeros(rows, dtype=value_L.dtype, device=value_L.device)
    counts_B = counts_B.index_add(0, rows_L, torch.ones_like(value_L))
    sums_B = torch.zeros_like(counts_B).index_add(0, rows_L, value_L)
    return sums_B / counts_B.clamp(min=1), counts_B


class _HeadLoss(torch.autograd.Function):
    """Cross-entropy through the LM head, `logit_rows` positions at a time; the backward pass makes logits again."""

    @staticmethod
    def forward(ctx: Any, hidden_LH: torch.Tensor, weight_VH: torch.Tensor, target_L: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(hidden_LH, weight_VH, target_L)
        rows = logit_rows(len(weight_VH))
        losses = [
            functional.cross_entropy(wide(h @ weight_VH.T), t, reduction="none")
            for h, t in zip(hidden_LH.split(rows), target_L.split(rows), strict=True)
        ]
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, grad_L: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # type: ignore[override]
        hidden_LH, weight_VH, target_L = ctx.saved_tensors
        out, rows = [], logit_rows(len(weight_VH))
        for h, t, g in zip(hidden_LH.split(rows), target_L.split(rows), grad_L.split(rows), strict=True):
            probs_LV = wide(h @ weight_VH.T).softmax(-1)
            probs_LV[torch.arange(len(t), device=t.device), t] -= 1
            out.append(probs_LV.mul_(g[:, None]).to(h.dtype) @ weight_VH)
        return torch.cat(out), None, None


def _by_sample(head: Any, hidden_LH: torch.Tensor, rows_L: torch.Tensor, samples: int) -> torch.Tensor:
    """Apply a head that may be tapped: it must see its rows by sample, [B, most labels, H]."""
    counts_B = torch.bincount(rows_L, minlength=samples)
    slot_L = torch.arange(len(rows_L), device=rows_L.device) - (counts_B.cumsum(0) - counts_B)[rows_L]
    laid = hidden_LH.new_zeros(samples, int(counts_B.max()), hidden_LH.shape[1])
    return head(laid.index_put((rows_L, slot_L), hidden_LH))[rows_L, slot_L]


def wide(x: torch.Tensor) -> torch.Tensor:
    """Return a tensor in the type that sums over it are kept in: float32, or float64 if it is that."""
    return x.to(sums_dtype(x.dtype))


def is_plain(head: torch.nn.Module) -> bool:
    """Say whether an LM head is a product with its weight and nothing else: no bias, adapter or tap."""
    return type(head) is torch.nn.Linear and head.bias is None and not _is_tapped(head)


def _is_tapped(module: torch.nn.Module) -> bool:
    """Say whether a tap has put its own forward into this module or one inside it."""
    return any("forward" in vars(m) for m in module.modules())


class ForwardTap(Tap):
    """What a function of (model, batch from `on_device`) says of each row, [B, D], without gradients."""

    def __init__(self, model: Any, vectors: Callable[[Any, dict[str, Any]], torch.Tensor]) -> None:
        self.model, self.vectors = model, vectors

    @torch.no_grad()
    def tensors(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return them; see `Tap`."""
        return self.vectors(self.model, on_device(batch, self.model)).float()


class LossTap(Tap):
    """Per-sample loss as a feature of width 1, in nats a token."""

    def __init__(self, model: Any) -> None:
        self.model, self.dim = model, 1

    @torch.no_grad()
    def tensors(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return them; see `Tap`."""
        batch = on_device(batch, self.model)
        losses_B, _ = sample_losses(self.model, batch, last_hidden(self.model, batch))
        return losses_B.float()[:, None]


class EmbeddingTap(Tap):
    """What a model makes of a sample, as one vector per row.

    `text`: the last hidden states' mean over all text positions (system prompt and answers included); `image`: the mean of
    the projected image tokens, 0 in a row without a picture, and no decoder runs; `both`: the first beside the second.
    """

    def __init__(self, model: Any, pooling: Pooling = "text") -> None:
        self.model, self.pooling = model, pooling
        self.dim = pooled_width(family_of(model).width(base_of(model).config), pooling)

    @torch.no_grad()
    def tensors(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return them; see `Tap`."""
        batch = on_device(batch, self.model)
        (embeds_BTH, arguments), valid_BT = embed(self.model, batch), batch["attention_mask"].bool()
        image_BT = torch.zeros_like(valid_BT).index_put(batch["image_at"], torch.ones_like(valid_BT[0, 0]))
        means = []
        if self.pooling != "image":
            means.append(_mean(decode(self.model, embeds_BTH, arguments), valid_BT & ~image_BT))
        if self.pooling != "text":
            means.append(_mean(embeds_BTH, image_BT))
        return torch.cat(means, dim=1).float()


def _mean(x_BTH: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Return the mean [B, H] over the marked positions; 0 where there are none."""
    sums_BH = wide(x_BTH).masked_fill(~mask_BT[..., None], 0).sum(1)
    return sums_BH / mask_BT.sum(1, keepdim=True).clamp(min=1)
