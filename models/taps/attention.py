"""Cross-modal attention of a proxy VLM as a few singular values a sample (XMAS).

Per layer: softmax over all valid keys of q·kᵀ/√width from the raw q_proj and k_proj outputs (`flat`: no head split, no
rotary, no causal mask, as published), block text queries × image keys, summed over layers in float32, then the top-k
singular values. Unlike the published code, pads are masked and image positions are read from the ids, so a sample's
values do not depend on its batch-mates (spec: XMAS §3, §3.1). Axes: B samples, L tokens, W width, K kept values.
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from ...store.errors import InputError
from ..load import base_of
from .forward import last_hidden, on_device

Reading = Literal["flat"]


class AttentionTap:
    """Turns a collated batch into the top-k singular values [B, K], descending; text-only samples get zeros."""

    def __init__(self, model: Any, top_k: int = 5, reading: Reading = "flat") -> None:
        self.model, self.dim, self.reading = model, top_k, reading
        self.image_token = base_of(model).config.image_token_id
        self.layers = _attention_layers(base_of(model))
        self._queries: dict[int, torch.Tensor] = {}
        self._cross_BLL: torch.Tensor | None = None
        self._masks: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def __call__(self, batch: dict[str, Any]) -> np.ndarray[Any, Any]:
        """Return the vectors [B, K], float32."""
        return self.tensors(batch).cpu().numpy()

    @torch.no_grad()
    def tensors(self, batch: dict[str, Any]) -> torch.Tensor:
        """The same on the model's device."""
        batch = on_device(batch, self.model)
        valid_BL = batch["attention_mask"].bool()
        image_BL = (batch["input_ids"] == self.image_token) & valid_BL
        # text after the image: questions and answers, not the system prompt (XMAS's rows)
        after_BL = image_BL.int().flip(1).cumsum(1).flip(1).eq(0)
        rows_BL = valid_BL & after_BL & image_BL.any(1, keepdim=True)
        self._masks, self._cross_BLL = (valid_BL, rows_BL, image_BL), None
        handles = [h for i, layer in enumerate(self.layers) for h in self._hook(i, layer)]
        try:
            last_hidden(self.model, batch)
        finally:
            for handle in handles:
                handle.remove()
            self._queries.clear()
        cross = self._cross_BLL
        if cross is None:
            return torch.zeros(valid_BL.shape[0], self.dim, device=valid_BL.device)
        return top_singular_values(cross, self.dim).float()

    def _hook(self, index: int, layer: nn.Module) -> list[Any]:
        def keep(_: nn.Module, __: Any, out: torch.Tensor) -> None:
            self._queries[index] = out

        def add(_: nn.Module, __: Any, out: torch.Tensor) -> None:
            self._add_layer(self._queries.pop(index), out)

        return [layer.q_proj.register_forward_hook(keep), layer.k_proj.register_forward_hook(add)]

    def _add_layer(self, query_BLW: torch.Tensor, key_BLW: torch.Tensor) -> None:
        assert self._masks is not None
        valid_BL, rows_BL, image_BL = self._masks
        if not bool(image_BL.any()):
            return
        if query_BLW.shape[-1] != key_BLW.shape[-1]:  # grouped keys: each serves several query heads
            key_BLW = _repeat_groups(key_BLW, query_BLW.shape[-1], self.layers[0].head_dim)
        query, key = _at_least_float(query_BLW), _at_least_float(key_BLW)
        # only text rows × all keys for the denominator, then image columns: nothing of size L × L
        query_BRW, real_BR = _gather_rows(query, rows_BL)
        scores_BRL = query_BRW @ key.transpose(1, 2) / query.shape[-1] ** 0.5
        probs_BRL = scores_BRL.masked_fill(~valid_BL[:, None], float("-inf")).softmax(-1)
        columns_BRC = _gather_rows(probs_BRL.transpose(1, 2), image_BL)[0].transpose(1, 2)
        block = columns_BRC * real_BR[:, :, None]
        self._cross_BLL = block if self._cross_BLL is None else self._cross_BLL + block


def top_singular_values(blocks_BRC: torch.Tensor, k: int) -> torch.Tensor:
    """Return the k largest singular values [B, k] of each block, descending; zeros where a block has fewer.

    By the eigenvalues of the smaller Gram matrix in float64: zero rows and columns (pads) do not change them, and the
    squaring costs no accuracy that float32 could show (`torch.linalg.svdvals` agrees to 1e-7 relative).
    """
    wide = blocks_BRC.double()
    if wide.shape[1] > wide.shape[2]:
        wide = wide.transpose(1, 2)
    values = torch.linalg.eigvalsh(wide @ wide.transpose(1, 2)).clamp(min=0).sqrt().flip(1)[:, :k]
    return torch.nn.functional.pad(values, (0, k - values.shape[1]))


def _gather_rows(x_BLW: torch.Tensor, mask_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pack the masked rows of each sample to the front: [B, R, W] with R = the largest count, and which are real."""
    most = int(mask_BL.sum(1).max())
    order_BR = mask_BL.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    real_BR = mask_BL.gather(1, order_BR)
    packed = x_BLW.gather(1, order_BR[:, :, None].expand(-1, -1, x_BLW.shape[-1]))
    return packed * real_BR[:, :, None], real_BR


def _repeat_groups(key_BLW: torch.Tensor, width: int, head_dim: int) -> torch.Tensor:
    heads = key_BLW.unflatten(-1, (-1, head_dim))
    return heads.repeat_interleave(width // key_BLW.shape[-1], dim=2).flatten(2)


def _at_least_float(x: torch.Tensor) -> torch.Tensor:
    # fp16 q·k overflows before the scaling (spec: XMAS §3.1 point 5)
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _attention_layers(model: Any) -> list[Any]:
    found = [m for n, m in model.model.language_model.named_modules() if hasattr(m, "q_proj") and hasattr(m, "k_proj")]
    if not found:
        raise InputError("this language model has no q_proj/k_proj modules: attention trajectories cannot be taken.")
    return found
