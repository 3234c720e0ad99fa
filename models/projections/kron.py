"""Two-sided projection (`kron`): ±1 matrices on both sides of each weight's gradient, (Cδ)ᵀ(Ax), summed over modules.

The gradient Σ_t δ[t] x[t]ᵀ is never formed: the factors are projected first (LoGra's idea with the counter-based signs;
there each module has dimensions of its own, here all add up into K). Linear in the loss, so for mode `sgd` only.
Axes: B samples, N leading rows (samples or images), T tokens, o and i a Linear's outputs and inputs, K = `sides[0]` ×
`sides[1]`.
"""

import torch

from .config import ProjectionConfig
from .dense import Rademacher
from .signs import rademacher_signs
from .sink import sums_dtype


class Kron:
    """Takes factors; biases, which have one side only, go through a dense projection."""

    factors = True

    def __init__(self, config: ProjectionConfig) -> None:
        self.dim, self.seed = config.dim, config.seed
        self.sides = sides(config.dim)
        self._signs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._biases = Rademacher(config)
        self._acc_BK = torch.empty(0)

    def start(self, rows: int, device: torch.device, dtype: torch.dtype) -> None:
        """Begin a batch."""
        self._acc_BK = torch.zeros(rows, self.dim, device=device, dtype=sums_dtype(dtype))
        self._biases.start(rows, device, dtype)

    def add(self, name: str, grads_BP: torch.Tensor) -> None:
        """Add a bias's gradients."""
        self._biases.add(name, grads_BP)

    def add_factors(
        self, name: str, delta_NTo: torch.Tensor, inputs_NTi: torch.Tensor, owner_N: torch.Tensor | None
    ) -> None:
        """Add a weight's gradients; what is projected row by row may be added up by owner afterwards."""
        c_oa, a_ib = self._matrices(name, delta_NTo, inputs_NTi)
        left_NTa, right_NTb = delta_NTo @ c_oa, inputs_NTi @ a_ib
        share_NK = torch.bmm(left_NTa.transpose(1, 2), right_NTb).flatten(1).to(self._acc_BK.dtype)
        if owner_N is None:
            self._acc_BK += share_NK
        else:
            self._acc_BK.index_add_(0, owner_N, share_NK)

    def finish(self) -> torch.Tensor:
        """Return the vectors [B, K]."""
        return self._acc_BK + self._biases.finish()

    def norms(self) -> None:
        """Not known: the projected row's norm is its estimate."""

    def _matrices(self, name: str, delta: torch.Tensor, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        signs = self._signs.get(name)
        if signs is None or (signs[0].device, signs[0].dtype) != (delta.device, delta.dtype):
            drawn = (
                rademacher_signs(
                    self.seed, f"{name} {side}", (0, size), columns, device=delta.device, dtype=delta.dtype
                )
                / columns**0.5
                for side, size, columns in zip(
                    ("outputs", "inputs"), (delta.shape[-1], inputs.shape[-1]), self.sides, strict=True
                )
            )
            signs = self._signs[name] = (next(drawn), next(drawn))
        return signs


def sides(dim: int) -> tuple[int, int]:
    """Return the two factors of `dim` that are nearest each other, the smaller one for the outputs."""
    small = max(d for d in range(1, int(dim**0.5) + 1) if dim % d == 0)
    return small, dim // small
