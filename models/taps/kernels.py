"""Triton kernels of the lean decoder: what `torch.compile` made slower than memory allows.

Axes: B rows, T tokens, N heads, E head width, L rows of the rotary tables: 1, or B where pictures give positions.
"""

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from ...store.errors import InputError


class Rotate(torch.autograd.Function):
    """Rotary position embedding of queries or keys [B, T, N, E]; backward is the rotation by the opposite angle."""

    @staticmethod
    def forward(ctx: Any, x_BTNE: torch.Tensor, cos_LTE: torch.Tensor, sin_LTE: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos_LTE, sin_LTE)
        return _rotated(x_BTNE, cos_LTE, sin_LTE, 1.0)

    @staticmethod
    def backward(ctx: Any, grad_BTNE: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # type: ignore[override]
        return _rotated(grad_BTNE, *ctx.saved_tensors, -1.0), None, None


def _rotated(x_BTNE: torch.Tensor, cos_LTE: torch.Tensor, sin_LTE: torch.Tensor, turn: float) -> torch.Tensor:
    rows, tokens, heads, width = x_BTNE.shape
    fits = len(cos_LTE) in (1, rows) and cos_LTE.shape[1:] == (tokens, width) and sin_LTE.shape == cos_LTE.shape
    if width % 2 or not fits:  # the kernel would read its neighbour's memory
        raise InputError(
            f"rotary tables of {tuple(cos_LTE.shape)} do not fit {rows} rows of {tokens} tokens and heads of {width}."
        )
    cos_LTE, sin_LTE = cos_LTE.contiguous(), sin_LTE.contiguous()
    if x_BTNE.stride(-1) != 1:  # what backward hands over is laid out as attention's kernel likes
        x_BTNE = x_BTNE.contiguous()
    out = torch.empty((rows, tokens, heads, width), dtype=x_BTNE.dtype, device=x_BTNE.device)
    _rotate[(rows * tokens,)](
        x_BTNE,
        cos_LTE,
        sin_LTE,
        out,
        turn,
        tokens,
        heads,
        # from one row's table to the next one's
        0 if len(cos_LTE) == 1 else tokens * width,
        *x_BTNE.stride()[:3],
        WIDTH=width,
        HALF=width // 2,
        # ranges of a kernel are powers of two; what is beyond the half or the last head is masked
        PLACES=triton.next_power_of_2(width // 2),
        HEADS=triton.next_power_of_2(heads),
        WIDE=tl.float64 if x_BTNE.dtype == torch.float64 else tl.float32,
        num_warps=4,
    )
    return out


@triton.jit
def _rotate(
    x,
    cos,
    sin,
    out,
    turn,
    tokens,
    heads,
    stride_table,
    stride_b,
    stride_t,
    stride_n,
    WIDTH: tl.constexpr,
    HALF: tl.constexpr,
    PLACES: tl.constexpr,
    HEADS: tl.constexpr,
    WIDE: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64)
    b, t = place // tokens, place % tokens
    n, e = tl.arange(0, HEADS)[:, None], tl.arange(0, PLACES)[None, :]
    there = (n < heads) & (e < HALF)
    angle = b * stride_table + t * WIDTH + e
    c = tl.load(cos + angle, mask=e < HALF, other=0.0).to(WIDE)
    s = tl.load(sin + angle, mask=e < HALF, other=0.0).to(WIDE) * turn
    pointers = x + b * stride_b + t * stride_t + n * stride_n + e
    first = tl.load(pointers, mask=there, other=0.0).to(WIDE)
    second = tl.load(pointers + HALF, mask=there, other=0.0).to(WIDE)
    to = out + (place * heads + n) * WIDTH + e
    tl.store(to, (first * c - second * s).to(out.dtype.element_ty), mask=there)
    tl.store(to + HALF, (second * c + first * s).to(out.dtype.element_ty), mask=there)
