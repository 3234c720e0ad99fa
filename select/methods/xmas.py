"""XMAS: balanced picks from clusters of attention trajectories, stable rows first (spec: XMAS §5, §6).

A row's trajectory is the sum of its top-k singular values at each checkpoint; instability is its total variation. k-means
groups trajectories; the budget is water-filled over clusters; inside one the lowest instability wins. Axes: N rows,
T checkpoints, K singular values, G clusters.
"""

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...store.config import Config
from ...store.errors import InputError
from ..pickers import columns_of, per_group, picks_table, proportional, scores_table, uniform, water_fill
from ..view import View

TEXT = "text"


class Xmas:
    """Text-only rows have no trajectory; `text_policy` says how they are chosen (at random within themselves)."""

    name = "xmas"
    needs = ("trajectory",)

    class Config(Config):
        """`clusters`: 0 takes one for every 40 rows, at most the paper's 1000.

        `features`: the sum of singular values a checkpoint, or all of them; `scale`: raw (as published), zscore over a
        checkpoint's rows, or log. `train_points`: rows that k-means learns from, 0 takes all (faiss alone would
        sample 256 a cluster). `text_policy`: proportional (their share of the pool), cluster (one more cluster, as
        published), all, or none.
        """

        clusters: int = Field(0, ge=0)
        features: Literal["sum", "all"] = "sum"
        scale: Literal["raw", "zscore", "log"] = "raw"
        iterations: int = Field(100, ge=1)
        train_points: int = Field(0, ge=0)
        text_policy: Literal["proportional", "cluster", "all", "none"] = "proportional"

    def __init__(self, config: "Xmas.Config") -> None:
        self.config = config

    def score(self, view: View, seed: int) -> pa.Table:
        """Return SCORES: group = cluster, score = -instability; text-only rows: target "text", group -1, random score."""
        image = view.column("has_image").astype(bool)
        if not image.any():
            raise InputError("xmas: no row of this pool has an image; there are no trajectories to cluster.")
        steps = view.steps("trajectory")
        x_NTK = np.stack([view.load("trajectory", s)[image] for s in steps], axis=1)
        x_NF = self._features(x_NTK)
        instability = np.abs(np.diff(x_NTK.sum(2), axis=1)).sum(1)
        group = np.full(len(view.ids), -1)
        group[image] = kmeans(x_NF, self._clusters(len(x_NF)), self.config, seed)
        score = uniform(view.ids, seed)
        score[image] = -instability
        target = np.where(image, "image", TEXT)
        return scores_table(view.ids, target, group, score)

    def pick(self, scores: pa.Table, budget: int, seed: int) -> pa.Table:
        """Return the text-only rows' share and the water-filled clusters' most stable rows."""
        ids, group, score = columns_of(scores)
        text_rows, image_rows = int((group < 0).sum()), int((group >= 0).sum())
        quota = self._text_quota(text_rows, image_rows, budget)
        numbers, sizes = np.unique(group[group >= 0], return_counts=True)
        if self.config.text_policy == "cluster" and text_rows:
            numbers, sizes = np.append(numbers, -1), np.append(sizes, text_rows)
        shares = water_fill(sizes, budget - quota) if budget > quota else np.zeros(len(sizes), np.int64)
        wanted = dict(zip(numbers.tolist(), shares.tolist(), strict=True))
        wanted[-1] = wanted.get(-1, 0) + quota
        take = per_group(ids, score, group, wanted)
        return picks_table(ids[take], group[take], score[take], self.name, (budget, seed))

    def _features(self, x_NTK: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        x_NF = x_NTK.sum(2) if self.config.features == "sum" else x_NTK.reshape(len(x_NTK), -1)
        if self.config.scale == "log":
            return np.log1p(x_NF)
        if self.config.scale == "zscore":
            return (x_NF - x_NF.mean(0)) / np.maximum(x_NF.std(0), 1e-12)
        return x_NF

    def _clusters(self, rows: int) -> int:
        return min(rows, self.config.clusters or min(1000, max(2, rows // 40)))

    def _text_quota(self, text: int, image: int, budget: int) -> int:
        if self.config.text_policy == "proportional" and text:
            return int(proportional(np.array([image, text]), budget)[1])
        if self.config.text_policy == "all":
            return min(text, budget)
        if self.config.text_policy == "none" and budget > image:
            raise InputError(f"xmas: text_policy none leaves {image} rows, the budget is {budget}.")
        return 0


def kmeans(x_NF: np.ndarray[Any, Any], clusters: int, config: "Xmas.Config", seed: int) -> np.ndarray[Any, Any]:
    """Return each row's cluster [N] by faiss k-means (L2), seeded.

    Raises:
        InputError: faiss is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise InputError("xmas clusters with faiss: pip install faiss-cpu (or faiss-gpu).") from error
    x_NF = np.ascontiguousarray(x_NF, np.float32)
    most = config.train_points or len(x_NF)
    model = faiss.Kmeans(
        x_NF.shape[1],
        clusters,
        niter=config.iterations,
        seed=seed + 1,
        min_points_per_centroid=1,
        max_points_per_centroid=max(1, -(-most // clusters)),
    )
    model.train(x_NF)
    return model.index.search(x_NF, 1)[1][:, 0]


SELECTOR = Xmas
