"""XMAS: balanced picks from clusters of attention trajectories, stable rows first (arXiv 2510.01454).

A row's trajectory is the sum of its top-k cross-attention singular values at each checkpoint of a proxy; its
instability is the trajectory's total variation, not normalised. k-means groups trajectories; the budget is
water-filled over the clusters; inside one the lowest instability wins. Text-only rows have no trajectory:
`text_policy` says how many are taken, at random among themselves. Axes: N rows with an image, T checkpoints,
K singular values, W numbers per checkpoint.
"""

from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...store.arrays import Array
from ...store.config import Config
from ...store.errors import InputError
from ...store.files import digest
from ..needs import Needs
from ..pickers import check_budget, per_group, proportional, uniform, water_fill
from ..rows import Labels, columns_of, picks_table, scores_table
from ..view import View

TEXT_GROUP = -1


class Xmas:
    """Group = cluster, score = -instability; text-only rows: target "text", group -1, a hashed score."""

    name = "xmas"
    needs = Needs(features=("trajectory",))
    seeded = True
    score_means = "order"

    class Config(Config):
        """How trajectories become clusters, and what is done with text-only rows."""

        clusters: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
            "auto",
            description="`auto`: one for every 40 rows with an image, at least 2 and at most the published 1000.",
        )
        top_k: int | None = Field(None, ge=1, description="How many singular values count; null: all that are stored.")
        trajectory: Literal["sum", "vectors"] = Field(
            "sum", description="Their sum (published), or the values themselves, whose total variation then adds up."
        )
        scale: Literal["raw", "zscore", "log"] = Field(
            "raw",
            description="raw (published), zscore (over the pool, at each checkpoint) or log (of 1 + x), for clusters "
            "and instability alike.",
        )
        kmeans: Literal["faiss", "faiss_gpu", "sklearn"] = Field(
            "faiss",
            description="What clusters: on the CPU, or (faiss_gpu: other last bits) on all GPUs of the driver's node.",
        )
        niter: int = Field(100, ge=1, description="Its iterations.")
        train_points: int | None = Field(
            None,
            ge=1,
            description="Rows, drawn by seed, that it learns from; null: all (the published default of faiss: 256 per "
            "cluster).",
        )
        text_policy: Literal["proportional", "cluster", "all", "none"] = Field(
            "proportional",
            description="What becomes of rows without a picture: proportional (their share of the pool), cluster (one "
            "more cluster, as published, which keeps 0.3 % of LLaVA's), all, or none.",
        )
        smallest_cluster: int = Field(1, ge=1, description="Clusters below it are left out (published: 3).")

    def __init__(self, config: "Xmas.Config") -> None:
        self.config = config

    def score(self, view: View, seed: int) -> pa.Table:
        """Return SCORES. Memory: f32 [N, T·W], and one shard of the store.

        Raises:
            InputError: fewer than 2 checkpoints, no row with an image, or more clusters than such rows.
        """
        image = view.column("has_image").astype(bool)
        x_NF, width, notes = self._trajectories(view, image)
        count = self._clusters(len(x_NF))
        nearest = cluster(x_NF, count, self.config, seed)
        group = np.full(len(image), TEXT_GROUP)
        group[image] = nearest
        score = uniform(view.ids, seed, "xmas text")
        score[image] = -total_variation(x_NF, width)
        notes |= {"clusters": count, "empty_clusters": count - len(np.unique(nearest))}
        labels = Labels((~image).astype(np.int32), ["image", "text"])
        return scores_table(view.ids, labels, group, score, notes)

    def pick(self, scores: pa.Table, budget: int, seed: int) -> pa.Table:
        """Return the text-only rows' share and the most stable rows of the water-filled clusters.

        Raises:
            InputError: the text policy, or `smallest_cluster`, leaves fewer rows than the budget, or more.
        """
        ids, group, score = columns_of(scores)
        numbers, sizes = np.unique(group, return_counts=True)
        text = int(sizes[numbers == TEXT_GROUP].sum())
        check_budget(budget, len(ids))
        quota = {TEXT_GROUP: self._text_quota(text, len(ids) - text, budget)}
        filled = sizes >= self.config.smallest_cluster
        if self.config.text_policy != "cluster":
            filled &= numbers != TEXT_GROUP
        left = budget - quota[TEXT_GROUP]
        if left:
            check_budget(left, int(sizes[filled].sum()), "the clusters' rows, that xmas may fill from,")
            quota |= dict(zip(numbers[filled].tolist(), water_fill(sizes[filled], left).tolist(), strict=True))
        take = per_group(ids, score, group, quota)
        return picks_table(ids[take], group[take], score[take], self.name, budget, seed)

    def _trajectories(self, view: View, image: Array) -> tuple[Array, int, dict[str, Any]]:
        """Return x [N, T·W] f32 in the order of ids, W, and counts of rows that are odd."""
        steps = view.steps("trajectory")
        if len(steps) < 2 or not image.any():
            raise InputError(
                "xmas reads how attention moves: it needs 2 checkpoints or more, and rows with an image; "
                f"there are {len(steps)} (steps {steps}) and {int(image.sum())}."
            )
        n = int(image.sum())
        # where each row of the pool goes; text-only rows share a last place that is thrown away
        place = np.where(image, np.cumsum(image) - 1, n)
        kept = self._kept(view.dim("trajectory"))
        width = kept if self.config.trajectory == "vectors" else 1
        x_NF = np.empty((n, len(steps) * width), np.float32)
        short, zero = np.zeros(n + 1, bool), np.zeros(n + 1, bool)
        # a checkpoint is gathered apart: rows come in any order, and in x each write would miss the cache
        now_NW = np.empty((n + 1, width), np.float32)
        for t, step in enumerate(steps):
            for batch in view.scan("trajectory", step):
                places_B, vec_BK = place[batch.positions], batch.vec[:, :kept]
                now_NW[places_B] = vec_BK if self.config.trajectory == "vectors" else _sums(vec_BK)[:, None]
                short[places_B[vec_BK[:, -1] == 0]] = True
                zero[places_B[vec_BK[:, 0] == 0]] = True
            x_NF[:, t * width : (t + 1) * width] = _scaled(now_NW[:n], self.config.scale)
        # a row with fewer than k text tokens has fewer than k singular values above 0
        counts = {"short_rows": int(short[:n].sum()), "zero_rows": int(zero[:n].sum()), "text_rows": len(image) - n}
        return x_NF, width, counts | {"steps": steps, "refused": len(view.left_out)}

    def _kept(self, stored: int) -> int:
        k = self.config.top_k or stored
        if k > stored:
            raise InputError(f"xmas: top_k is {k}, but these trajectories hold {stored} singular values.")
        return k

    def _clusters(self, rows: int) -> int:
        if self.config.clusters == "auto":
            return min(rows, 1000, max(2, rows // 40))
        if self.config.clusters > rows:
            raise InputError(f"xmas: {self.config.clusters} clusters of {rows} rows; give fewer, or `auto`.")
        return self.config.clusters

    def _text_quota(self, text: int, image: int, budget: int) -> int:
        if self.config.text_policy == "proportional":
            return int(proportional(np.array([image, text]), budget)[1])
        if self.config.text_policy == "all":
            if text > budget:
                raise InputError(f"xmas: text_policy `all` keeps {text} text-only rows, above a budget of {budget}.")
            return text
        return 0


def total_variation(x_NF: Array, width: int) -> Array:
    """Return Σ_t |x_{t+1} - x_t| of each row f64 [N], added up over the `width` numbers of a checkpoint."""
    out = np.zeros(len(x_NF))
    for column in range(width, x_NF.shape[1]):
        out += np.abs(x_NF[:, column].astype(np.float64) - x_NF[:, column - width])
    return out


def cluster(x_NF: Array, clusters: int, config: "Xmas.Config", seed: int) -> Array:
    """Return each row's cluster [N] by k-means in L2 from random rows; the same bits for the same seed.

    Raises:
        InputError: faiss is not installed, or is to use a GPU and finds none.
    """
    # both libraries take 31 bits
    number = int(digest(f"xmas/{seed}"), 16) >> 33
    if config.kmeans == "sklearn":
        from sklearn.cluster import KMeans

        model = KMeans(clusters, init="random", n_init=1, max_iter=config.niter, random_state=number)
        return np.asarray(model.fit(x_NF[_sample(len(x_NF), config.train_points, number)]).predict(x_NF))
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            "xmas clusters with faiss: pip install faiss-cpu (or faiss-gpu), or set kmeans to sklearn."
        ) from error
    gpus = getattr(faiss, "get_num_gpus", int)() if config.kmeans == "faiss_gpu" else 0
    if config.kmeans == "faiss_gpu" and not gpus:
        raise InputError(
            "xmas: kmeans is faiss_gpu, but faiss finds no GPU: install faiss-gpu, or set kmeans to faiss."
        )
    learn_from = x_NF[_sample(len(x_NF), config.train_points, number)]
    # faiss would draw 256 points per cluster by itself; the sample is ours to draw
    kmeans = faiss.Kmeans(
        x_NF.shape[1],
        clusters,
        niter=config.niter,
        seed=number,
        min_points_per_centroid=1,
        max_points_per_centroid=len(learn_from),
        gpu=gpus or False,
    )
    kmeans.train(learn_from)
    _, nearest_N1 = kmeans.index.search(x_NF, 1)
    return nearest_N1[:, 0]


def _sums(vec_BK: Array) -> Array:
    """Return each row's sum f64 [B]: column by column, since adding up five numbers per row costs ten times as much."""
    total = vec_BK[:, 0].astype(np.float64)
    for k in range(1, vec_BK.shape[1]):
        total += vec_BK[:, k]
    return total


def _sample(rows: int, wanted: int | None, seed: int) -> Array | slice:
    if wanted is None or wanted >= rows:
        return slice(None)
    return np.sort(np.random.default_rng(seed).choice(rows, wanted, replace=False))


def _scaled(x_NW: Array, scale: str) -> Array:
    """Return one checkpoint's numbers on the chosen scale."""
    if scale == "log":
        return np.log1p(x_NW)
    if scale == "zscore":
        mean, spread = x_NW.mean(0, dtype=np.float64), x_NW.std(0, dtype=np.float64)
        # a constant column says nothing: it becomes 0
        return (x_NW - mean) / np.where(spread > 0, spread, np.inf)
    return x_NW


SELECTOR = Xmas
