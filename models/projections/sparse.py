"""Sparse Johnson–Lindenstrauss projection (`sjlt`): each gradient element is added, signed, to `nonzeros` columns.

The K columns form s = nonzeros blocks of w = K / s; each element has one column in every block. A parameter's elements
stand in chunks of w: in block b, element j of chunk q goes to column j xor mask(q, b), with a hashed mask and sign. Two
elements of one chunk never meet, two of different chunks with probability 1/w, so the variance is at most that of free
hashing; and a batch is one pass of contiguous reads in a fixed order, without atomics. Axes: B rows, P elements, K columns.
"""

import torch
from torch.nn import functional

from .config import ProjectionConfig
from .signs import block_word, check_size, element_words, keys, mix, outer_signs, signed
from .sink import sums_dtype


class Sjlt:
    """On a GPU one Triton kernel a parameter; elsewhere PyTorch with the same signs and columns."""

    factors = False
    # chunks × width a step: bounds the memory of signs and gathered gradients
    BLOCK = 1 << 20

    def __init__(self, config: ProjectionConfig) -> None:
        self.dim, self.seed, self.nonzeros = config.dim, config.seed, config.nonzeros
        self.width = config.dim // config.nonzeros
        self._acc_BK = torch.empty(0)

    def start(self, rows: int, device: torch.device, dtype: torch.dtype) -> None:
        """Begin a batch."""
        self._acc_BK = torch.zeros(rows, self.dim, device=device, dtype=sums_dtype(dtype))

    def add(self, name: str, grads_BP: torch.Tensor) -> None:
        """Add one parameter's share."""
        check_size(name, grads_BP.shape[1])
        key = keys(self.seed, name)
        if grads_BP.is_cuda and grads_BP.dtype != torch.float64:
            from .kernels import add_sjlt

            add_sjlt(self._acc_BK, grads_BP, key, self.nonzeros)
            return
        chunks = max(1, self.BLOCK // self.width)
        for begin in range(0, grads_BP.shape[1], chunks * self.width):
            self._add_chunks(key, grads_BP[:, begin : begin + chunks * self.width], begin)

    def _add_chunks(self, key: tuple[int, ...], part_BP: torch.Tensor, begin: int) -> None:
        rows, size = part_BP.shape
        count = -(-size // self.width)
        part_BP = functional.pad(part_BP.to(self._acc_BK.dtype), (0, count * self.width - size))
        columns_SP, signs_SP = sjlt_places(key, (begin, begin + count * self.width), self.nonzeros, self.width)
        for b in range(self.nonzeros):
            target = self._acc_BK[:, b * self.width : (b + 1) * self.width]
            signed_BP = part_BP * signs_SP[b].to(part_BP)
            columns = columns_SP[b].view(1, count, self.width).expand(rows, -1, -1).to(part_BP.device)
            # in a chunk j → j xor mask is its own inverse, so scattering is gathering
            target += signed_BP.view(rows, count, self.width).gather(2, columns).sum(1)

    def finish(self) -> torch.Tensor:
        """Return the vectors [B, K]."""
        return self._acc_BK / self.nonzeros**0.5

    def norms(self) -> None:
        """Not known: the projected row's norm is its estimate."""


def sjlt_places(
    key: tuple[int, ...], span: tuple[int, int], nonzeros: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where each element goes: columns i64 [nonzeros, P] inside each block, and signs f32 [nonzeros, P].

    `span` starts at a multiple of `width`.
    """
    u_P = element_words(key, span, "cpu")
    e_P = torch.arange(span[0], span[1], dtype=torch.int32)
    columns, signs = [], []
    for b in range(nonzeros):
        mask_P = mix(mix((e_P // width) ^ key[2]) + signed((key[3] + b * 0x9E3779B1) & 0xFFFFFFFF)) & (width - 1)
        columns.append(((e_P % width) ^ mask_P).long())
        signs.append(outer_signs(u_P, torch.tensor([block_word(key, b)], dtype=torch.int32))[:, 0])
    return torch.stack(columns), torch.stack(signs)
