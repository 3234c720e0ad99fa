"""Top singular values of many small blocks: subspace iteration on the Gram matrix, exact where that does not settle.

Axes: B blocks, R rows, C columns, n = the smaller of R and C, p = the iterated subspace.
"""

import torch

# 5 values and 19 more: what decays slowly behind them must not reach them
WIDE, ROUNDS = 24, 16
# a Ritz pair's residual relative to the largest eigenvalue, squared roughly the values' error
SETTLED = 1e-6


def top_singular_values(blocks_BRC: torch.Tensor, k: int) -> torch.Tensor:
    """Return the k largest singular values [B, k] of each block, descending, float64; zeros where a block has fewer.

    By the eigenvalues of the smaller Gram matrix in float64: zero rows and columns (pads) do not change them, and the
    squaring costs no accuracy that float32 could show (`torch.linalg.svdvals` agrees to 1e-7 relative).
    """
    return exact(gram(blocks_BRC), k)


def gram(blocks_BRC: torch.Tensor) -> torch.Tensor:
    """Return the smaller Gram matrix [B, n, n] of each block, float64."""
    wide = blocks_BRC.double()
    if wide.shape[1] > wide.shape[2]:
        wide = wide.transpose(1, 2)
    return wide @ wide.transpose(1, 2)


def exact(gram_Bnn: torch.Tensor, k: int) -> torch.Tensor:
    """Return the roots of the k largest eigenvalues [B, k], descending."""
    values = torch.linalg.eigvalsh(gram_Bnn).clamp(min=0).sqrt().flip(1)[:, :k]
    return torch.nn.functional.pad(values, (0, k - values.shape[1]))


def iterated(gram_Bnn: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same [B, k] by subspace iteration, without waiting for the device, and which rows did not settle [B].

    The start depends on row numbers alone, so a block's values do not depend on its pads or on its batch-mates.
    """
    n = gram_Bnn.shape[1]
    if n <= WIDE:
        return exact(gram_Bnn, k), torch.zeros(len(gram_Bnn), dtype=torch.bool, device=gram_Bnn.device)
    # incommensurable cosines: columns of full rank, the same for every block
    at_n = torch.arange(1, n + 1, device=gram_Bnn.device, dtype=torch.float64)
    of_p = torch.arange(1, WIDE + 1, device=gram_Bnn.device, dtype=torch.float64).sqrt()
    basis_Bnp = torch.cos(at_n[:, None] * of_p * 1.6180339887 + at_n[:, None].sqrt()).expand(len(gram_Bnn), n, WIDE)
    for _ in range(ROUNDS):
        basis_Bnp = _orthonormal(gram_Bnn @ basis_Bnp)
    image_Bnp = gram_Bnn @ basis_Bnp
    values_Bp, turn_Bpp = torch.linalg.eigh(basis_Bnp.transpose(1, 2) @ image_Bnp)
    values_Bk, turn_Bpk = values_Bp.flip(1)[:, :k], turn_Bpp.flip(2)[:, :, :k]
    residual_Bk = (image_Bnp @ turn_Bpk - (basis_Bnp @ turn_Bpk) * values_Bk[:, None]).norm(dim=1)
    # an eigenvalue lies within residual² / gap of its Ritz value; against the value itself, as its error is judged
    settled_B = (residual_Bk <= SETTLED * values_Bk.clamp(min=0) + 1e-14 * values_Bk[:, :1]).all(1)
    return values_Bk.clamp(min=0).sqrt(), ~settled_B


def _orthonormal(basis_Bnp: torch.Tensor) -> torch.Tensor:
    """Orthonormalise columns by Cholesky; a basis that is nearly dependent is nudged, and cleaned in the next round."""
    basis_Bnp = basis_Bnp / basis_Bnp.norm(dim=1, keepdim=True).clamp(min=1e-300)
    inner_Bpp = basis_Bnp.transpose(1, 2) @ basis_Bnp
    eye_pp = torch.eye(basis_Bnp.shape[2], dtype=basis_Bnp.dtype, device=basis_Bnp.device)
    lower_Bpp, _ = torch.linalg.cholesky_ex(inner_Bpp + 1e-13 * eye_pp)
    return torch.linalg.solve_triangular(lower_Bpp.mT, basis_Bnp, upper=True, left=False)
