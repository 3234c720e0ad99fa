"""Triton kernels of the projections: the signs of `signs.py`, made where they are used.

`rademacher`: a matrix product whose right-hand side exists in registers only; a sign costs half a multiplication and half a
permutation. `sjlt`: one pass over the gradients, each program owning the columns that it adds to: no atomics, and a rerun
gives the same bits. Offsets into the gradients are 64-bit: rows × elements passes 2³² for 14 rows of a 7B LoRA (fast_jl
wraps there; spec: LESS §3.2). Axes: B rows, P elements, K columns.
"""

from functools import lru_cache

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from .signs import MUL1, MUL2, block_word, signed

# inside kernels Triton reads globals only when they are constexpr
_MUL1, _MUL2 = tl.constexpr(MUL1), tl.constexpr(MUL2)
_GOLDEN = tl.constexpr(signed(0x9E3779B1))


def add_rademacher(acc_BK: torch.Tensor, grads_BP: torch.Tensor, key: tuple[int, ...], columns_K: torch.Tensor) -> None:
    """Add grads [B, P] × signs [P, K] to `acc_BK` (float32)."""
    rows, size = grads_BP.shape
    dim = acc_BK.shape[1]
    grads_BP = grads_BP.contiguous()
    width = max(16, triton.next_power_of_2(min(rows, 64)))
    exact = grads_BP.dtype == torch.float32
    # measured on an H200, 16 rows × 341M elements × 8192 columns: 339 ms; 739 where each program hashed its elements anew
    widest, block_p = (64, 32) if exact else {16: (128, 128), 32: (128, 64)}.get(width, (64, 64))
    block_k = max(b for b in (16, 32, 64, 128) if dim // 2 % b == 0 and b <= widest)
    stretch = _stretch(size, block_p)
    splits = triton.cdiv(size, stretch)
    elements_P = torch.empty(size, device=acc_BK.device, dtype=torch.int32)
    _elements[(triton.cdiv(size, 1024),)](elements_P, size, key[0], key[1], BLOCK=1024)
    for begin in range(0, rows, width):
        part = grads_BP[begin : begin + width]
        sums_SBK = torch.empty(splits, part.shape[0], dim, device=acc_BK.device, dtype=torch.float32)
        _rademacher[(dim // 2 // block_k, splits)](
            part,
            elements_P,
            columns_K,
            sums_SBK,
            part.shape[0],
            size,
            dim,
            stretch,
            WIDTH=width,
            BLOCK_K=block_k,
            BLOCK_P=block_p,
            EXACT=exact,
            num_warps=4,
        )
        acc_BK[begin : begin + width] += sums_SBK.sum(0)


def add_sjlt(acc_BK: torch.Tensor, grads_BP: torch.Tensor, key: tuple[int, ...], nonzeros: int) -> None:
    """Add the sparse projection of grads [B, P] to `acc_BK` (float32)."""
    rows, size = grads_BP.shape
    dim = acc_BK.shape[1]
    width = dim // nonzeros
    block_b, block_k, chunks = 8, min(128, width), 8
    stretch = _stretch(size, width * chunks)
    splits = triton.cdiv(size, stretch)
    sums_SBK = torch.empty(splits, rows, dim, device=acc_BK.device, dtype=torch.float32)
    _sjlt[(dim // block_k, splits, triton.cdiv(rows, block_b))](
        grads_BP.contiguous(),
        _block_words(key, nonzeros, acc_BK.device),
        sums_SBK,
        rows,
        size,
        dim,
        *key,
        stretch,
        WIDTH=width,
        BLOCK_B=block_b,
        BLOCK_K=block_k,
        CHUNKS=chunks,
        num_warps=4,
    )
    acc_BK += sums_SBK.sum(0)


@lru_cache(1 << 14)
def _block_words(key: tuple[int, ...], nonzeros: int, device: torch.device) -> torch.Tensor:
    return torch.tensor([block_word(key, b) for b in range(nonzeros)], dtype=torch.int32, device=device)


def _stretch(size: int, step: int) -> int:
    """Return how many elements one program adds up, a multiple of `step`: many programs, but few sums to keep.

    It depends on the parameter's size alone, so that the order of additions is the same on every GPU.
    """
    return step * max(triton.cdiv(1 << 16, step), triton.cdiv(size, 64 * step))


@triton.jit
def _mix(x):
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * _MUL1
    x = x ^ ((x >> 13) & 0x7FFFF)
    x = x * _MUL2
    return x ^ ((x >> 16) & 0xFFFF)


@triton.jit
def _bf16_signs(words):
    # two signs a register: the high halves of two words, all but their sign bit replaced by that of 1.0
    return tl.inline_asm_elementwise(
        "{ .reg .b32 t; prmt.b32 t, $1, $2, 0x7632; lop3.b32 $0, t, 0x80008000, 0x3F803F80, 0xEA; }",
        "=r,r,r",
        [words],
        dtype=tl.bfloat16,
        is_pure=True,
        pack=2,
    )


@triton.jit
def _bf16_second_signs(words):
    # the same from the words' second bits
    return tl.inline_asm_elementwise(
        "{ .reg .b32 t; prmt.b32 t, $1, $2, 0x7632; shl.b32 t, t, 1; lop3.b32 $0, t, 0x80008000, 0x3F803F80, 0xEA; }",
        "=r,r,r",
        [words],
        dtype=tl.bfloat16,
        is_pure=True,
        pack=2,
    )


@triton.jit
def _float_signs(words):
    return ((words & -2147483648) | 0x3F800000).to(tl.float32, bitcast=True)


# keys are random numbers: specialising on their divisibility would compile a kernel over and over
@triton.jit(do_not_specialize=["key0", "key1"])
def _elements(words, size, key0, key1, BLOCK: tl.constexpr):
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(words + e, _mix(_mix(e ^ key0) + key1), mask=e < size)


@triton.jit(do_not_specialize=["rows", "stretch"])
def _rademacher(
    grads,
    elements,
    columns,
    sums,
    rows,
    size,
    dim,
    stretch,
    WIDTH: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_P: tl.constexpr,
    EXACT: tl.constexpr,
):
    k = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    begin = tl.program_id(1) * stretch
    row = tl.arange(0, WIDTH)
    v = tl.load(columns + k)
    p = tl.arange(0, BLOCK_P)
    acc = tl.zeros((BLOCK_K, WIDTH), tl.float32)
    acc2 = tl.zeros((BLOCK_K, WIDTH), tl.float32)
    base = grads + row[:, None].to(tl.int64) * size
    for first in tl.range(begin, tl.minimum(begin + stretch, size), BLOCK_P, num_stages=3):
        e = first + p
        g = tl.trans(tl.load(base + e[None, :], mask=(row[:, None] < rows) & (e[None, :] < size), other=0.0))
        words = v[:, None] * tl.load(elements + e, mask=e < size, other=0)[None, :]
        if EXACT:
            acc += tl.dot(_float_signs(words), g, input_precision="tf32x3")
            acc2 += tl.dot(_float_signs(words << 1), g, input_precision="tf32x3")
        else:
            acc = tl.dot(_bf16_signs(words), g, acc)
            acc2 = tl.dot(_bf16_second_signs(words), g, acc2)
    out = sums + (tl.program_id(1).to(tl.int64) * rows + row[None, :]) * dim + k[:, None]
    tl.store(out, acc, mask=row[None, :] < rows)
    tl.store(out + dim // 2, acc2, mask=row[None, :] < rows)


@triton.jit(do_not_specialize=["rows", "key0", "key1", "key2", "key3", "stretch"])
def _sjlt(
    grads,
    words,
    sums,
    rows,
    size,
    dim,
    key0,
    key1,
    key2,
    key3,
    stretch,
    WIDTH: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    column = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    block = tl.program_id(0) * BLOCK_K // WIDTH
    k = column - block * WIDTH
    word = tl.load(words + block)
    row = tl.program_id(2) * BLOCK_B + tl.arange(0, BLOCK_B)
    base = grads + row[:, None].to(tl.int64) * size
    acc = tl.zeros((BLOCK_B, BLOCK_K), tl.float32)
    begin = tl.program_id(1) * stretch
    for first in range(begin, tl.minimum(begin + stretch, size), WIDTH * CHUNKS):
        for i in tl.static_range(CHUNKS):
            start = first + i * WIDTH
            mask = _mix(_mix((start // WIDTH) ^ key2) + (key3 + block * _GOLDEN)) & (WIDTH - 1)
            e = start + (k ^ mask)
            g = tl.load(base + e[None, :], mask=(row[:, None] < rows) & (e[None, :] < size), other=0.0).to(tl.float32)
            negative = _mix(_mix(e ^ key0) + key1) * word < 0
            acc += tl.where(negative[None, :], -g, g)
    out = sums + (tl.program_id(1).to(tl.int64) * rows + row[:, None]) * dim + column[None, :]
    tl.store(out, acc, mask=row[:, None] < rows)
