"""Triton kernels of the fast decoder: what `torch.compile` made slower than memory allows.

Axes: R tokens of all rows, N heads, E head width.
"""

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from ...store.errors import InputError


class Rotate(torch.autograd.Function):
    """Rotary position embedding of queries or keys [B, T, N, E]; backward is the rotation by the opposite angle."""

    @staticmethod
    def forward(ctx: Any, x_BTNE: torch.Tensor, cos_TE: torch.Tensor, sin_TE: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos_TE, sin_TE)
        return _rotated(x_BTNE, cos_TE, sin_TE, 1.0)

    @staticmethod
    def backward(ctx: Any, grad_BTNE: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # type: ignore[override]
        return _rotated(grad_BTNE, *ctx.saved_tensors, -1.0), None, None


def _rotated(x_BTNE: torch.Tensor, cos_TE: torch.Tensor, sin_TE: torch.Tensor, turn: float) -> torch.Tensor:
    rows, tokens, heads, width = x_BTNE.shape
    if width % 2 or cos_TE.shape != (tokens, width) or sin_TE.shape != cos_TE.shape:
        # the kernel would read its neighbour's memory
        raise InputError(f"rotary tables of {tuple(cos_TE.shape)} do not fit {tokens} tokens and heads of {width}.")
    if x_BTNE.stride(-1) != 1:  # what backward hands over is laid out as attention's kernel likes
        x_BTNE = x_BTNE.contiguous()
    out = torch.empty((rows, tokens, heads, width), dtype=x_BTNE.dtype, device=x_BTNE.device)
    _rotate[(rows * tokens,)](
        x_BTNE,
        cos_TE,
        sin_TE,
        out,
        turn,
        tokens,
        heads,
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
    c = tl.load(cos + t * WIDTH + e, mask=e < HALF, other=0.0).to(WIDE)
    s = tl.load(sin + t * WIDTH + e, mask=e < HALF, other=0.0).to(WIDE) * turn
    pointers = x + b * stride_b + t * stride_t + n * stride_n + e
    first = tl.load(pointers, mask=there, other=0.0).to(WIDE)
    second = tl.load(pointers + HALF, mask=there, other=0.0).to(WIDE)
    to = out + (place * heads + n) * WIDTH + e
    tl.store(to, (first * c - second * s).to(out.dtype.element_ty), mask=there)
    tl.store(to + HALF, (second * c + first * s).to(out.dtype.element_ty), mask=there)
