"""Counter-based random signs: a pure function of (seed, parameter name, element, column), on any device.

No generator state and no launch geometry takes part, so every batch, block, actor and GPU model sees one matrix (TRAK's
CUDA kernel depends on the number of SMs; spec: LESS §3.2). A sign is the top bit of u(element) · v(column) mod 2³², where u
and v come from MurmurHash3's finaliser: multiply-shift hashing, half a multiplication a sign, which a GPU makes faster than
it could read the signs from memory. Two elements of a parameter share all their signs with probability 2⁻³²; over 10⁸
elements that adds 2⁻¹⁶ of ‖g‖‖h‖ to an inner product, against the projection's own 1/√K. Axes: P elements, K columns.
"""

import hashlib
from functools import lru_cache

import torch

from ...store.errors import InputError

# element numbers are 31-bit, and a kernel's last block may reach beyond the last element
MOST = (1 << 31) - (1 << 20)


def signed(word: int) -> int:
    """Return a 32-bit word as the int32 of the same bits."""
    return word - (1 << 32) if word & 0x80000000 else word


MUL1, MUL2 = signed(0x85EBCA6B), signed(0xC2B2AE35)


def keys(seed: int, name: str) -> tuple[int, int, int, int]:
    """Return four int32 keys of a parameter."""
    h = hashlib.blake2b(name.encode(), key=seed.to_bytes(8, "little"), digest_size=16).digest()
    a, b, c, d = (signed(int.from_bytes(h[i : i + 4], "little")) for i in (0, 4, 8, 12))
    return a, b, c, d


def check_size(name: str, elements: int) -> None:
    """Refuse a parameter whose elements cannot be numbered in 31 bits."""
    if elements >= MOST:
        raise InputError(f"parameter {name!r} has {elements} elements; a projection numbers at most {MOST - 1}.")


def mix(x: torch.Tensor) -> torch.Tensor:
    """MurmurHash3's 32-bit finaliser on int32 tensors; `>>` keeps the sign there, so shifts are masked."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * MUL1
    x = x ^ ((x >> 13) & 0x7FFFF)
    x = x * MUL2
    return x ^ ((x >> 16) & 0xFFFF)


def element_words(key: tuple[int, ...], span: tuple[int, int], device: torch.device | str) -> torch.Tensor:
    """Return u, int32 [P], of the elements `span[0] … span[1] - 1`."""
    e_P = torch.arange(span[0], span[1], dtype=torch.int32, device=device)
    return mix(mix(e_P ^ key[0]) + key[1])


def column_words(key: tuple[int, ...], columns: int, device: torch.device | str) -> torch.Tensor:
    """Return v, int32 [K]: odd words for the first half (u → u · v is then one-to-one, so each column's signs are fair).

    The second half are their doubles: the top bit of u · 2v is the second bit of u · v, so that a kernel gets two signs
    from one multiplication.
    """
    c_H = torch.arange(columns // 2, dtype=torch.int32, device=device)
    odd_H = mix(mix(c_H ^ key[2]) + key[3]) | 1
    return torch.cat([odd_H, odd_H * 2])


def rademacher_signs(
    seed: int,
    name: str,
    span: tuple[int, int],
    dim: int,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Return the ±1 signs [P, dim] of a stretch of a parameter's elements."""
    check_size(name, span[1])
    key = keys(seed, name)
    return outer_signs(element_words(key, span, device), column_words(key, dim, device), dtype)


def outer_signs(u_P: torch.Tensor, v_K: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return the signs [P, K] of all products of two sets of words."""
    words_PK = u_P[:, None] * v_K[None]
    # the product's top bit becomes the sign bit of a float 1: no comparison, no conversion
    ones_PK = words_PK.bitwise_and_(signed(0x80000000)).bitwise_or_(0x3F800000).view(torch.float32)
    return ones_PK.to(dtype)


@lru_cache(1 << 16)
def block_word(key: tuple[int, ...], block: int) -> int:
    """Return the odd int32 that turns an element's word into its sign in a block."""
    return int(mix(mix(torch.tensor([block], dtype=torch.int32) ^ key[1]) + key[0]) | 1)
