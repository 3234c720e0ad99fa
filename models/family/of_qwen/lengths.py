"""Attention inside pictures, or windows of them: all stretches of one length in one call.

Without FlashAttention, Hugging Face's towers start their attention once a picture, Qwen2.5-VL's once a window: some 30 of a
picture of 640 × 480, in each of 32 blocks, so that a fast GPU waits for Python.
Axes: P patches of a batch, W stretches of one length, L patches of a stretch, A heads, D values a head.
"""

import sys
from types import MethodType
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention


def group_lengths(tower: Any) -> None:
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
    """Return what the block's own attention does, [P, A·D]. `cu_seqlens`: where stretches end, with a 0 before."""
    rotated = sys.modules[type(self).__module__].apply_rotary_pos_emb_vision
    patches = hidden_states.shape[0]
    qkv_3PAD = self.qkv(hidden_states).reshape(patches, 3, self.num_heads, -1).transpose(0, 1)
    q_PAD, k_PAD = rotated(qkv_3PAD[0], qkv_3PAD[1], *position_embeddings)
    qkv = (q_PAD, k_PAD, qkv_3PAD[2])
    stretches = _by_length(cu_seqlens)
    if len(stretches) == 1:  # as they lie: nothing is copied
        length = stretches[0].shape[1]
        out_PAD = _grouped(self, [x.unflatten(0, (-1, length)) for x in qkv]).flatten(0, 1)
    else:
        out_PAD = torch.empty_like(q_PAD)
        for rows_WL in stretches:
            out_PAD.index_copy_(0, rows_WL.flatten(), _grouped(self, [x[rows_WL] for x in qkv]).flatten(0, 1))
    return self.proj(out_PAD.reshape(patches, -1))


def _grouped(attention: Any, qkv_WLAD: list[torch.Tensor]) -> torch.Tensor:
    dropout = attention.attention_dropout if attention.training else 0.0
    q, k, v = (x.transpose(1, 2) for x in qkv_WLAD)
    return scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=attention.scaling).transpose(1, 2)


def _by_length(ends_W: torch.Tensor) -> list[torch.Tensor]:
    """Return the patches' numbers by stretch, [W, L] for each length that stretches have."""
    first_W, length_W = ends_W[:-1].long(), ends_W.diff().long()
    rows = []
    for length in length_W.unique().tolist():
        if length:
            rows.append(first_W[length_W == length][:, None] + torch.arange(length, device=ends_W.device))
    return rows
