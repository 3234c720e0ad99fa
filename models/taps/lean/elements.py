"""What a lean layer does beside its Linears and attention; on a GPU each is one kernel over its values.

Axes: B rows, T tokens, N heads, E head width, W the width of a norm, L batch rows of the rotary tables (1 or B).
"""

from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional

from ..forward import wide


class Norm:
    """RMSNorm over the last axis with a module's frozen weight; `shifted` multiplies by 1 + weight, in float32."""

    def __init__(self, module: Any, shifted: bool) -> None:
        self.shifted, weight = shifted, module.weight.detach()
        self.weight = 1 + wide(weight) if shifted else weight
        self.eps = module.eps if shifted else module.variance_epsilon

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return x [..., W] normed, in its own type."""
        if not self.shifted:
            return functional.rms_norm(x, (x.shape[-1],), self.weight, self.eps)
        norm = _compiled(_shifted) if x.is_cuda else _shifted
        return norm(x.flatten(0, -2), self.weight, self.eps).view(x.shape)


def _shifted(x_RW: torch.Tensor, weight_W: torch.Tensor, eps: float) -> torch.Tensor:
    wide_RW = wide(x_RW)
    return (wide_RW * torch.rsqrt(wide_RW.square().mean(-1, keepdim=True) + eps) * weight_W).type_as(x_RW)


def rotate(x_BTNE: torch.Tensor, cos_LTE: torch.Tensor, sin_LTE: torch.Tensor) -> torch.Tensor:
    """Return queries or keys turned by the tables, which are one for all rows or a row each."""
    if x_BTNE.is_cuda:
        from ..kernels import Rotate

        return Rotate.apply(x_BTNE, cos_LTE, sin_LTE)  # type: ignore[return-value]
    first, second = x_BTNE.chunk(2, -1)
    return x_BTNE * cos_LTE[:, :, None] + torch.cat((-second, first), -1) * sin_LTE[:, :, None]


def gate(activation: str, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Return activation(gate) · up."""
    work = {"silu": _silu, "gelu_pytorch_tanh": _gelu}[activation]
    return (_compiled(work) if gate.is_cuda else work)(gate, up)


def _silu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return functional.silu(gate) * up


def _gelu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return functional.gelu(gate, approximate="tanh") * up


@lru_cache(8)
def _compiled(work: Any) -> Any:
    return torch.compile(work, dynamic=True)
