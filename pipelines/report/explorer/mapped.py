"""A map of a pool: rows by the two directions in which a feature's vectors differ most (their principal components).

The axes are those of a seeded sample, and only the points that are shown are put on them; of a store of many GB every
so-manyth shard is read. Axes: P points, D width of the feature.
"""

from dataclasses import dataclass

import numpy as np

from ....store.arrays import Array
from ....store.features import FeatureSet, exists_any
from ....store.keys import FeatureKey
from .scores import Finder

# the first that a run has is drawn
KINDS = ("embedding", "gradient", "trajectory", "influence")
# vectors that the axes are made of, turns that find them, and the bytes of vectors (as float32) that are read
AXES, ROUNDS, BYTES = 4096, 8, 1 << 30
SCALE, TAIL = 65_535, 0.002


@dataclass(frozen=True)
class Map:
    """Points by their place: `x_P`, `y_P` from 0 to SCALE, NaN for one without a feature; the variance that each axis has.

    `every`: which shards were read; `lacking`: points without a feature there; `outside`: those beyond the 0.2 % to 99.8 %
    that are drawn, which lie on the border.
    """

    feature: str
    step: int
    every: int
    x_P: Array
    y_P: Array
    explained: tuple[float, float]
    axes: int
    lacking: int
    outside: int


@dataclass(frozen=True)
class Source:
    """What a map is drawn of: a feature at a checkpoint, each so-manyth shard of which is read; `readable`: its rows."""

    features: FeatureSet
    step: int
    every: int
    readable: Array


def source_of(root: str, names: list[str], finder: Finder) -> Source | None:
    """Find the feature to draw among `names`; None where a run has none of two numbers or more."""
    name = _best_feature(root, names)
    if name is None:
        return None
    features = FeatureSet(root, name)
    step = features.steps()[-1]
    rows = len(features.ids(step))
    every = max(1, round(rows * features.key(step).dim * 4 / BYTES))
    return Source(features, step, every, finder.rows(features.ids(step, every), f"{name} features"))


def map_of(source: Source, finder: Finder, points_P: Array) -> Map:
    """Place the points (positions in the pool)."""
    sought_N = np.full(len(finder.ids_N), -1)
    sought_N[points_P] = np.arange(len(points_P))
    mean_D, axes_2D, explained, drawn = _axes(source)
    xy_P2 = np.full((len(points_P), 2), np.nan)
    for batch in source.features.scan(source.step, every=source.every):
        place = sought_N[finder.rows(batch.ids, "features")]
        shown = np.flatnonzero(place >= 0)
        xy_P2[place[shown]] = (batch.vec[shown] - mean_D) @ axes_2D.T
    lacking = int(np.isnan(xy_P2[:, 0]).sum())
    x_P, y_P, outside = _scaled(xy_P2)
    return Map(source.features.name, source.step, source.every, x_P, y_P, explained, drawn, lacking, outside)


def _best_feature(root: str, names: list[str]) -> str | None:
    by_kind: dict[str, str] = {}
    for name in (n for n in names if exists_any(root, n)):
        features = FeatureSet(root, name)
        key: FeatureKey = features.key(features.steps()[-1])
        if key.dim >= 2:
            by_kind.setdefault(key.kind, name)
    return next((by_kind[kind] for kind in KINDS if kind in by_kind), None)


def _axes(source: Source) -> tuple[Array, Array, tuple[float, float], int]:
    """Return the mean [D], the two axes [2, D], the share of the variance of each, and of how many rows they are made."""
    rng = np.random.default_rng(0)
    share, parts = AXES / max(1, len(source.readable)), []
    for batch in source.features.scan(source.step, every=source.every):
        parts.append(batch.vec[rng.random(len(batch.ids)) < share])
    x_ND = np.concatenate(parts).astype(np.float32)
    mean_D = x_ND.mean(0) if len(x_ND) else np.zeros(x_ND.shape[1], np.float32)
    axes_2D, explained = principal_axes(x_ND - mean_D)
    return mean_D, axes_2D, explained, len(x_ND)


def principal_axes(x_ND: Array) -> tuple[Array, tuple[float, float]]:
    """Return the two directions of the largest variance [2, D] of centred rows, and the share that each has of all of it.

    By subspace iteration (Halko et al. 2011, algorithm 4.4) with eight directions more than are wanted.
    """
    whole = float(np.square(x_ND, dtype=np.float64).sum())
    if whole == 0:
        return np.eye(2, x_ND.shape[1], dtype=np.float32), (0.0, 0.0)
    width = min(10, *x_ND.shape)
    basis_DK = np.linalg.qr(np.random.default_rng(0).standard_normal((x_ND.shape[1], width)).astype(np.float32))[0]
    for _ in range(ROUNDS):
        basis_DK = np.linalg.qr(x_ND.T @ (x_ND @ basis_DK))[0]
    _, strength_K, turned_KK = np.linalg.svd(x_ND @ basis_DK, full_matrices=False)
    axes_2D = np.zeros((2, x_ND.shape[1]), np.float32)
    axes_2D[: min(2, width)] = (turned_KK @ basis_DK.T)[:2]
    # an axis may point either way: the largest number is positive
    largest = np.abs(axes_2D).argmax(1)
    axes_2D *= np.where(axes_2D[[0, 1], largest] < 0, -1, 1)[:, None]
    shares = [*(np.square(strength_K[:2], dtype=np.float64) / whole), 0.0]
    return axes_2D, (float(shares[0]), float(shares[1]))


def _scaled(xy_P2: Array) -> tuple[Array, Array, int]:
    """Put both axes on one scale, so that distances stay what they are; returns x, y and how many points lie outside."""
    known = ~np.isnan(xy_P2[:, 0])
    if not known.any():
        return xy_P2[:, 0], xy_P2[:, 1], 0
    # of few points none is an outlier
    tail = TAIL if known.sum() * TAIL >= 2 else 0.0
    low_2, high_2 = np.quantile(xy_P2[known], (tail, 1 - tail), axis=0)
    span = max(float((high_2 - low_2).max()), 1e-12)
    place_P2 = (xy_P2 - (low_2 + high_2) / 2) / span + 0.5
    beyond = known & ((place_P2 < 0) | (place_P2 > 1)).any(1)
    place_P2 = np.round(np.clip(place_P2, 0, 1) * SCALE)
    return place_P2[:, 0], place_P2[:, 1], int(beyond.sum())
