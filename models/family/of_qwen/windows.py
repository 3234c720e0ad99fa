"""Attention inside windows of patches, all windows of one length in one call.

Without FlashAttention, Hugging Face's tower starts its attention once a window: some 30 of a picture of 640 × 480, in each
of 32 blocks, so that a fast GPU waits for Python.
Axes: P patches of a batch, W windows of one length, L patches of a window.
"""

from types import MethodType
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention


def group_windows(tower: Any) -> None:
    """Have every block of a tower attend so, once; one that asks for other attention than `sdpa` is left as it is.

    The blocks keep their modules and weights: adapters, hooks and names are what they were.
    """
    if tower.config._attn_implementation != "sdpa":
        return
    for block in tower.blocks:
        if "forward" not in vars(block.attn):
            block.attn.forward = MethodType(_attend, block.attn)


def _attend(
    self: Any,
    hidden_states: torch.Tensor,
    cu_seqlens: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    **_: Any,
) -> torch.Tensor:
    """Return what `Qwen2_5_VLVisionAttention.forward` does, [P, D]. `cu_seqlens`: where windows end, with a 0 before."""
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

    patches = hidden_states.shape[0]
    qkv_3PAD = self.qkv(hidden_states).reshape(patches, 3, self.num_heads, -1).transpose(0, 1)
    q_PAD, k_PAD = apply_rotary_pos_emb_vision(qkv_3PAD[0], qkv_3PAD[1], *position_embeddings)
    dropout = self.attention_dropout if self.training else 0.0
    out_PAD = torch.empty_like(q_PAD)
    for rows_WL in _by_length(cu_seqlens):
        q, k, v = (x[rows_WL].transpose(1, 2) for x in (q_PAD, k_PAD, qkv_3PAD[2]))
        attended = scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=self.scaling)
        out_PAD.index_copy_(0, rows_WL.flatten(), attended.transpose(1, 2).flatten(0, 1))
    return self.proj(out_PAD.reshape(patches, -1))


def _by_length(ends_W: torch.Tensor) -> list[torch.Tensor]:
    """Return the patches' numbers by window, [W, L] for each length that windows have."""
    first_W, length_W = ends_W[:-1].long(), ends_W.diff().long()
    rows = []
    for length in length_W.unique().tolist():
        if length:
            rows.append(first_W[length_W == length][:, None] + torch.arange(length, device=ends_W.device))
    return rows
