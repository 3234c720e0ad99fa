"""Top singular values of many small blocks: filtered subspace iteration on the Gram matrix, eigenvalues where it fails.

Axes: B blocks, R rows, C columns, n = the smaller of R and C, p = the iterated subspace.
"""

import torch

# 5 values and 19 more: what decays slowly behind them must not reach them
WIDE, POWERS, FILTERS, DEGREE = 24, 8, 4, 5
# values this many times the smallest Ritz value are settled by the powers alone, and taken out before filtering
FAR = 6.0
# a Ritz value is within its residual of an eigenvalue; its root then within half of that, relatively
SETTLED = 2e-5


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
    """Return the roots of the k largest eigenvalues [B, k], descending; NaN for a matrix that is not finite."""
    gram_Bnn, spoilt_B1 = _finite(gram_Bnn)
    values = torch.linalg.eigvalsh(gram_Bnn).clamp(min=0).sqrt().flip(1)[:, :k]
    return torch.nn.functional.pad(values, (0, k - values.shape[1])).masked_fill(spoilt_B1, torch.nan)


def iterated(gram_Bnn: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same [B, k] by subspace iteration, without waiting for the device, and which rows did not settle [B].

    Powers of the matrix settle the values that stand out. Those are taken out, and Chebyshev polynomials that are small on
    [0, smallest Ritz value] part the rest, however close together. The start depends on row numbers alone, so a block's
    values do not depend on its pads or on its batch-mates.
    """
    n = gram_Bnn.shape[1]
    if n <= WIDE or k > WIDE // 2:  # so many values would not settle in so small a subspace
        return exact(gram_Bnn, k), torch.zeros(len(gram_Bnn), dtype=torch.bool, device=gram_Bnn.device)
    gram_Bnn, spoilt_B1 = _finite(gram_Bnn)
    basis_Bnp = start_np = _start(n, gram_Bnn.device).expand(len(gram_Bnn), n, WIDE)
    for _ in range(POWERS):
        basis_Bnp = _orthonormal(gram_Bnn @ basis_Bnp)
    far_Bp, basis_Bnp = _ritz(gram_Bnn, basis_Bnp)
    is_far_B1p = (far_Bp > FAR * torch.maximum(far_Bp[:, -1:], 1e-10 * far_Bp[:, :1]))[:, None]
    locked_Bnp = basis_Bnp * is_far_B1p
    rest_Bnn = gram_Bnn - (locked_Bnp * far_Bp[:, None]) @ locked_Bnp.mT
    # a block of lower rank has zeros there
    cut_B11 = torch.maximum(far_Bp[:, -1:], 1e-10 * far_Bp[:, :1]).clamp(min=1e-200)[:, None]
    basis_Bnp = torch.where(is_far_B1p, start_np, basis_Bnp)
    for _ in range(FILTERS):
        basis_Bnp = basis_Bnp - locked_Bnp @ (locked_Bnp.mT @ basis_Bnp)
        basis_Bnp = _orthonormal(_filtered(rest_Bnn, basis_Bnp, cut_B11))
    # what rounding brought back of the large ones would drown the small ones' residuals
    basis_Bnp = _orthonormal(basis_Bnp - locked_Bnp @ (locked_Bnp.mT @ basis_Bnp))
    near_Bp, basis_Bnp = _ritz(rest_Bnn, basis_Bnp - locked_Bnp @ (locked_Bnp.mT @ basis_Bnp))
    values_Bq = torch.cat([far_Bp * is_far_B1p[:, 0], near_Bp], 1)
    vectors_Bnq = torch.cat([locked_Bnp, basis_Bnp], 2)
    values_Bk, order_Bk = values_Bq.topk(k, dim=1)
    vectors_Bnk = vectors_Bnq.gather(2, order_Bk[:, None].expand(-1, n, -1))
    residual_Bk = (gram_Bnn @ vectors_Bnk - vectors_Bnk * values_Bk[:, None]).norm(dim=1)
    settled_B = (residual_Bk <= SETTLED * values_Bk.clamp(min=0) + 1e-12 * values_Bk[:, :1]).all(1)
    return values_Bk.clamp(min=0).sqrt().masked_fill(spoilt_B1, torch.nan), ~settled_B & ~spoilt_B1[:, 0]


def _finite(gram_Bnn: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the matrices with those that are not finite zeroed, and which those were [B, 1]: LAPACK raises on them."""
    spoilt_B = ~gram_Bnn.isfinite().flatten(1).all(1)
    return gram_Bnn.masked_fill(spoilt_B[:, None, None], 0), spoilt_B[:, None]


def _start(n: int, device: torch.device) -> torch.Tensor:
    # incommensurable cosines: columns of full rank, the same for every block
    at_n = torch.arange(1, n + 1, device=device, dtype=torch.float64)
    of_p = torch.arange(1, WIDE + 1, device=device, dtype=torch.float64).sqrt()
    return torch.cos(at_n[:, None] * of_p * 1.6180339887 + at_n[:, None].sqrt())


def _ritz(matrix_Bnn: torch.Tensor, basis_Bnp: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Ritz values [B, p], descending, and vectors [B, n, p]."""
    values_Bp, turn_Bpp = torch.linalg.eigh(basis_Bnp.mT @ (matrix_Bnn @ basis_Bnp))
    return values_Bp.flip(1), basis_Bnp @ turn_Bpp.flip(2)


def _filtered(matrix_Bnn: torch.Tensor, basis_Bnp: torch.Tensor, cut_B11: torch.Tensor) -> torch.Tensor:
    """Return T_m(2 G / cut − 1) applied to a basis: at most 1 on [0, cut], growing fast above it."""

    def shifted(x_Bnp: torch.Tensor) -> torch.Tensor:
        return (matrix_Bnn @ x_Bnp) * (2 / cut_B11) - x_Bnp

    before, now = basis_Bnp, shifted(basis_Bnp)
    for _ in range(DEGREE - 1):
        before, now = now, 2 * shifted(now) - before
    return now


def _orthonormal(basis_Bnp: torch.Tensor) -> torch.Tensor:
    """Orthonormalise columns by Cholesky; a basis that is nearly dependent is nudged, and cleaned in the next round."""
    basis_Bnp = basis_Bnp / basis_Bnp.norm(dim=1, keepdim=True).clamp(min=1e-300)
    inner_Bpp = basis_Bnp.mT @ basis_Bnp
    eye_pp = torch.eye(basis_Bnp.shape[2], dtype=basis_Bnp.dtype, device=basis_Bnp.device)
    lower_Bpp, _ = torch.linalg.cholesky_ex(inner_Bpp + 1e-13 * eye_pp)
    return torch.linalg.solve_triangular(lower_Bpp.mT, basis_Bnp, upper=True, left=False)
