"""No projection: exact inner products with the mean gradients of K target tasks, and exact norms.

When the targets are known first, no datastore of gradients is needed: 2·P·K operations a row, no projection noise (spec:
LESS §6.2). Each target row counts with its unit gradient, as in LESS, so the means take two passes over the targets:
`Norms`, then `Means`. Axes: B rows, P elements of one parameter, K tasks.
"""

import torch

from ...store.errors import InputError
from .sink import sums_dtype


class Norms:
    """Exact norms of per-sample gradients; the vectors are [B, 1], the norms themselves."""

    factors, dim = False, 1

    def __init__(self) -> None:
        self._squares_B = torch.empty(0)

    def start(self, rows: int, device: torch.device, dtype: torch.dtype) -> None:
        """Begin a batch."""
        self._squares_B = torch.zeros(rows, device=device, dtype=sums_dtype(dtype))

    def add(self, name: str, grads_BP: torch.Tensor) -> None:
        """Add one parameter's share."""
        self._squares_B += torch.linalg.vector_norm(grads_BP, dim=1, dtype=self._squares_B.dtype).square()

    def finish(self) -> torch.Tensor:
        """Return the norms [B, 1]."""
        return self._squares_B.sqrt()[:, None]

    def norms(self) -> torch.Tensor:
        """Return the norms [B]."""
        return self._squares_B.sqrt()


class Means(Norms):
    """Adds up weighted gradients by task: `sums[name]` [K, P]; `weights_BK` belong to the batch under way."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.tasks = tasks
        self.weights_BK = torch.empty(0)
        self.sums: dict[str, torch.Tensor] = {}

    def add(self, name: str, grads_BP: torch.Tensor) -> None:
        """Add one parameter's share to its sums, in float32 (float64 for float64)."""
        super().add(name, grads_BP)
        wide = sums_dtype(grads_BP.dtype)
        share_KP = self.weights_BK.to(grads_BP.device, wide).T @ grads_BP.to(wide)
        if name in self.sums:
            self.sums[name] += share_KP
        else:
            self.sums[name] = share_KP


class Targets(Norms):
    """Inner products with target means: `means` name → [K, P], held on the gradients' device."""

    def __init__(self, means: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.means, self.dim = dict(means), next(iter(means.values())).shape[0]
        self._acc_BK = torch.empty(0)

    def start(self, rows: int, device: torch.device, dtype: torch.dtype) -> None:
        """Begin a batch."""
        super().start(rows, device, dtype)
        self._acc_BK = torch.zeros(rows, self.dim, device=device, dtype=sums_dtype(dtype))

    def add(self, name: str, grads_BP: torch.Tensor) -> None:
        """Add one parameter's share.

        Raises:
            InputError: the means know no such parameter, or another shape.
        """
        mean_KP = self.means.get(name)
        if mean_KP is None or mean_KP.shape[1] != grads_BP.shape[1]:
            raise InputError(f"the target means hold no {name!r} of {grads_BP.shape[1]} elements: make them anew.")
        if mean_KP.device != grads_BP.device:
            mean_KP = self.means[name] = mean_KP.to(grads_BP.device)
        super().add(name, grads_BP)
        self._acc_BK += _wide_product(grads_BP, mean_KP)

    def finish(self) -> torch.Tensor:
        """Return the inner products [B, K]."""
        return self._acc_BK


def _wide_product(grads_BP: torch.Tensor, mean_KP: torch.Tensor) -> torch.Tensor:
    """Return ⟨row, mean⟩ [B, K] with float32 sums: the products of one parameter must not be rounded to bf16."""
    if grads_BP.is_cuda and grads_BP.dtype == mean_KP.dtype == torch.bfloat16:
        return torch.mm(grads_BP, mean_KP.T, out_dtype=torch.float32)
    wide = sums_dtype(grads_BP.dtype)
    return grads_BP.to(wide) @ mean_KP.to(wide).T
