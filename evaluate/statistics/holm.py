"""Holm's step-down correction: many comparisons in one table, one chance of a false finding among all of them."""

from collections.abc import Sequence

import numpy as np

from ...store.errors import InputError


def holm(ps: Sequence[float]) -> list[float]:
    """Return adjusted p values, in the order of `ps`.

    The i-th smallest of m becomes the largest of (m − j + 1) · p_j over all j ≤ i, at most 1.
    Source: Holm 1979.

    Raises:
        InputError: a p is no number from 0 to 1.
    """
    values_M = np.asarray(ps, np.float64)
    if not ((values_M >= 0) & (values_M <= 1)).all():
        raise InputError(f"a p value is a number from 0 to 1, and one of these is not: {list(ps)}.")
    m = len(values_M)
    order = np.argsort(values_M, kind="stable")
    stepped = np.maximum.accumulate(values_M[order] * (m - np.arange(m)))
    adjusted_M = np.empty(m)
    adjusted_M[order] = np.minimum(stepped, 1.0)
    return adjusted_M.tolist()
