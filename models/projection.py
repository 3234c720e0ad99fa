"""Random projection of per-sample gradients, parameter by parameter, never of the whole gradient.

The matrix is a counter-based hash of (seed, parameter name, element, column): the same on every device, for any batch,
world size and block size (TRAK's CUDA kernel depends on the GPU's SM count; spec: LESS §3.2). Axes: B rows, P elements
of one parameter, K projected dimensions. E[⟨Rx, Ry⟩] = ⟨x, y⟩, since R's entries are ±1/√K.
"""

import hashlib
from typing import Literal, Protocol

import torch
from pydantic import Field

from ..store.config import Config
from ..store.errors import InputError, suggest

_MASK = 0xFFFFFFFF


class ProjectionConfig(Config):
    """How gradients become vectors: `rademacher` (dense ±1/√dim) or `none` (all elements, side by side)."""

    kind: Literal["rademacher", "none"] = "rademacher"
    dim: int = Field(8192, ge=32, multiple_of=32)
    seed: int = Field(0, ge=0)


class Sink(Protocol):
    """Takes one parameter's per-sample gradients [B, P] at a time and ends up with the vectors [B, K]."""

    dim: int

    def start(self, rows: int, device: torch.device, dtype: torch.dtype) -> None: ...

    def add(self, name: str, grads_BP: torch.Tensor) -> None: ...

    def finish(self) -> torch.Tensor: ...


class Rademacher:
    """Dense ±1/√K projection; signs are made block by block, and those of small parameters kept for the next batch."""

    # 2^24 signs a block: 64 MB in float32, so memory does not depend on the parameter's size
    BLOCK = 1 << 24
    # signs kept between batches: all of a tiny twin's, a four-hundredth of a 7B projector's at 8192 columns
    KEPT = 1 << 26

    def __init__(self, config: ProjectionConfig) -> None:
        self.dim, self.seed = config.dim, config.seed
        self._acc_BK = torch.empty(0)
        self._kept: dict[tuple[str, int], torch.Tensor] = {}
        self._room = self.KEPT

    def start(self, rows: int, device: torch.device, dtype: torch.dtype) -> None:
        """Begin a batch of `rows` samples; sums are kept in float32 (float64 for float64 gradients)."""
        kind = torch.float64 if dtype == torch.float64 else torch.float32
        self._acc_BK = torch.zeros(rows, self.dim, device=device, dtype=kind)

    def add(self, name: str, grads_BP: torch.Tensor) -> None:
        """Add one parameter's share."""
        grads_BP = grads_BP.to(self._acc_BK.dtype)
        step = max(1, self.BLOCK // self.dim)
        for begin in range(0, grads_BP.shape[1], step):
            part = grads_BP[:, begin : begin + step]
            signs_PK = self._signs(name, (begin, begin + part.shape[1]))
            self._acc_BK.addmm_(part, signs_PK)

    def finish(self) -> torch.Tensor:
        """Return the vectors [B, K]."""
        return self._acc_BK / self.dim**0.5

    def _signs(self, name: str, span: tuple[int, int]) -> torch.Tensor:
        wanted = self._acc_BK
        found = self._kept.get((name, span[0]))
        if found is None or (found.device, found.dtype) != (wanted.device, wanted.dtype):
            found = rademacher_signs(self.seed, name, span, self.dim, device=wanted.device, dtype=wanted.dtype)
            if found.numel() <= self._room:
                self._kept[name, span[0]] = found
                self._room -= found.numel()
        return found


class Concatenate:
    """No projection: the gradient itself, parameters side by side in the order they were added first."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.dim = sum(sizes.values())
        self._begin: dict[str, int] = {}
        at = 0
        for name, size in sizes.items():
            self._begin[name] = at
            at += size
        self._acc_BK = torch.empty(0)

    def start(self, rows: int, device: torch.device, dtype: torch.dtype) -> None:
        """Begin a batch."""
        self._acc_BK = torch.zeros(rows, self.dim, device=device, dtype=dtype)

    def add(self, name: str, grads_BP: torch.Tensor) -> None:
        """Put one parameter's gradients in their place."""
        begin = self._begin[name]
        self._acc_BK[:, begin : begin + grads_BP.shape[1]] += grads_BP

    def finish(self) -> torch.Tensor:
        """Return the gradients [B, K]."""
        return self._acc_BK


def make_sink(config: ProjectionConfig, sizes: dict[str, int]) -> Sink:
    """Return the sink for a config; `sizes` are the tapped parameters' element counts, in order."""
    if config.kind == "rademacher":
        return Rademacher(config)
    if config.kind == "none":
        return Concatenate(sizes)
    raise InputError(f"unknown projection {config.kind!r}{suggest(config.kind, ('rademacher', 'none'))}")


def rademacher_signs(
    seed: int,
    name: str,
    span: tuple[int, int],
    dim: int,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Return the ±1 signs [P, dim] of the elements `span[0] … span[1] - 1` of a parameter.

    One 32-bit hash gives the signs of 32 columns: bit j of word g is column 32 g + j.
    """
    begin, end = span
    key0, key1 = _keys(seed, name)
    element = torch.arange(begin, end, device=device, dtype=torch.int64) & _MASK
    word = torch.arange(dim // 32, device=device, dtype=torch.int64)
    mixed_P1 = _mix(element ^ key0)[:, None]
    words_PG = _mix((mixed_P1 + word * 0x9E3779B1 + key1) & _MASK)
    bits_PG32 = (words_PG[:, :, None] >> torch.arange(32, device=device)) & 1
    return (1 - 2 * bits_PG32).reshape(end - begin, dim).to(dtype)


def _keys(seed: int, name: str) -> tuple[int, int]:
    h = hashlib.blake2b(name.encode(), key=seed.to_bytes(8, "little"), digest_size=8).digest()
    return int.from_bytes(h[:4], "little"), int.from_bytes(h[4:], "little")


def _mix(x: torch.Tensor) -> torch.Tensor:
    # MurmurHash3's 32-bit finaliser in int64: products stay exact in their low 32 bits, shifts see no sign
    x = x ^ (x >> 16)
    x = (x * 0x85EBCA6B) & _MASK
    x = x ^ (x >> 13)
    x = (x * 0xC2B2AE35) & _MASK
    return x ^ (x >> 16)
