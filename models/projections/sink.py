"""What a gradient tap pours into: one parameter's per-sample gradients at a time, never the whole gradient.

Axes: B samples, N leading rows (samples or images), P elements of one parameter, K width of the result, T tokens, o and i a
Linear's outputs and inputs.
"""

from typing import Protocol

import torch


class Sink(Protocol):
    """Takes per-sample gradients parameter by parameter and ends up with vectors [B, K].

    `factors`: the sink takes a weight's two factors (`add_factors`) in place of its gradient.
    """

    dim: int
    factors: bool

    def start(self, rows: int, device: torch.device, dtype: torch.dtype) -> None:
        """Begin a batch of `rows` samples whose gradients come in `dtype`."""
        ...

    def add(self, name: str, grads_BP: torch.Tensor) -> None:
        """Add one parameter's gradients; each parameter comes at most once a batch."""
        ...

    def finish(self) -> torch.Tensor:
        """Return the vectors [B, K], on the gradients' device."""
        ...

    def norms(self) -> torch.Tensor | None:
        """Return the exact norms [B] of the un-projected gradients where the sink knows them, else None."""
        ...


def sums_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type of sums: float32, or float64 for float64 gradients."""
    return torch.float64 if dtype == torch.float64 else torch.float32
