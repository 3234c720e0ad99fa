"""Dense ±1/√K projection (`rademacher`): signs are made block by block and never stored; and no projection (`none`).

Axes: B rows, P elements of one parameter, K columns.
"""

import torch

from .config import ProjectionConfig
from .signs import check_size, column_words, element_words, keys, outer_signs
from .sink import sums_dtype


class Rademacher:
    """On a GPU a Triton kernel makes the signs inside the tile that it multiplies; elsewhere PyTorch makes the same."""

    factors = False
    # 2^22 signs per block: what the CPU's caches like; a tiny model's are kept for the next batch
    BLOCK, KEPT = 1 << 22, 1 << 26

    def __init__(self, config: ProjectionConfig) -> None:
        self.dim, self.seed = config.dim, config.seed
        self._acc_BK = torch.empty(0)
        self._words: dict[str, torch.Tensor] = {}
        self._kept: dict[tuple[str, int], torch.Tensor] = {}
        self._room = self.KEPT

    def start(self, rows: int, device: torch.device, dtype: torch.dtype) -> None:
        """Begin a batch."""
        self._acc_BK = torch.zeros(rows, self.dim, device=device, dtype=sums_dtype(dtype))

    def add(self, name: str, grads_BP: torch.Tensor) -> None:
        """Add one parameter's share."""
        check_size(name, grads_BP.shape[1])
        if grads_BP.is_cuda and grads_BP.dtype != torch.float64:
            from .kernels import add_rademacher

            add_rademacher(self._acc_BK, grads_BP, keys(self.seed, name), self._columns(name))
            return
        grads_BP = grads_BP.to(self._acc_BK.dtype)
        step = max(1, self.BLOCK // self.dim)
        for begin in range(0, grads_BP.shape[1], step):
            part_BP = grads_BP[:, begin : begin + step]
            self._acc_BK.addmm_(part_BP, self._signs(name, (begin, begin + part_BP.shape[1])))

    def finish(self) -> torch.Tensor:
        """Return the vectors [B, K]."""
        return self._acc_BK / self.dim**0.5

    def norms(self) -> None:
        """Not known: the projected row's norm is its estimate."""

    def _columns(self, name: str) -> torch.Tensor:
        words = self._words.get(name)
        if words is None or words.device != self._acc_BK.device:
            words = self._words[name] = column_words(keys(self.seed, name), self.dim, self._acc_BK.device)
        return words

    def _signs(self, name: str, span: tuple[int, int]) -> torch.Tensor:
        wanted = self._acc_BK
        signs = self._kept.get((name, span[0]))
        if signs is None or (signs.device, signs.dtype) != (wanted.device, wanted.dtype):
            u_P = element_words(keys(self.seed, name), span, wanted.device)
            signs = outer_signs(u_P, self._columns(name), wanted.dtype)
            if signs.numel() <= self._room:
                self._kept[name, span[0]] = signs
                self._room -= signs.numel()
        return signs


class Concatenate:
    """No projection: the gradient itself, parameters side by side in the order of `sizes` (name → elements)."""

    factors = False

    def __init__(self, sizes: dict[str, int]) -> None:
        self.dim = sum(sizes.values())
        self._begin: dict[str, int] = {}
        begin = 0
        for name, size in sizes.items():
            self._begin[name] = begin
            begin += size
        self._acc_BK = torch.empty(0)

    def start(self, rows: int, device: torch.device, dtype: torch.dtype) -> None:
        """Begin a batch."""
        self._acc_BK = torch.zeros(rows, self.dim, device=device, dtype=sums_dtype(dtype))

    def add(self, name: str, grads_BP: torch.Tensor) -> None:
        """Put one parameter's gradients in their place."""
        begin = self._begin[name]
        self._acc_BK[:, begin : begin + grads_BP.shape[1]] += grads_BP

    def finish(self) -> torch.Tensor:
        """Return the gradients [B, K]."""
        return self._acc_BK

    def norms(self) -> torch.Tensor:
        """Return the rows' norms."""
        return self._acc_BK.norm(dim=1)
