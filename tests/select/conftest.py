"""A small pool with synthetic features of every kind, written by the real store."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
from vinnow.select.view import View
from vinnow.store.features import FeatureBatch, write_shard
from vinnow.store.keys import FeatureKey, recipe_text

DIM, TOP = 12, 5
STEPS = (10, 20, 30)
TASKS = np.array(["color"] * 3 + ["count"] * 4 + ["shape"])
KINDS = ("gradient", "trajectory", "loss", "influence", "embedding")


@dataclass
class World:
    """`n` rows, one in five text-only; the last quarter repeats the features of the first (ties)."""

    steps: ClassVar = STEPS
    tasks: ClassVar = TASKS
    n: int = 90
    seed: int = 0
    ids: np.ndarray = field(init=False)
    columns: dict = field(init=False)
    pool: dict = field(init=False)
    targets: dict = field(init=False)

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        n = self.n
        # all 64 bits: ids above 2**63 must survive every step
        self.ids = np.unique(rng.integers(0, 2**64, 2 * n, dtype=np.uint64))[::2][:n]
        rng.shuffle(self.ids)
        image = np.arange(n) % 5 != 0
        self.columns = {
            "source": np.array([("vqa", "ocr", "chat")[i % 7 % 3] for i in range(n)], object),
            "task": np.array([("color", "shape")[i % 2] for i in range(n)], object),
            "n_chars": np.arange(n),
            "has_image": image,
        }
        self.columns |= {f"extra:{k}": c for k, c in scienceqa_fields(rng, n).items()}
        twins = np.where(np.arange(n) >= n - n // 4, np.arange(n) - (n - n // 4), np.arange(n))
        image_of_twin = image & image[twins]
        gradients = {s: rng.normal(size=(n, DIM))[twins] * image_of_twin[:, None] for s in STEPS}
        values = {s: -np.sort(-rng.gamma(2, 3, (n, TOP)), axis=1)[twins] * image[:, None] for s in STEPS}
        self.pool = {
            "gradient": {s: g.astype(np.float32) for s, g in gradients.items()},
            "trajectory": {s: v.astype(np.float32) for s, v in values.items()},
            "loss": {s: rng.gamma(2, 1, (n, 1)).astype(np.float32) for s in STEPS},
        }
        # not centred, some rows alike, one of them nothing at all
        vectors = {s: (rng.normal(size=(n, DIM)) + 0.5)[twins] * (twins > 0)[:, None] for s in STEPS}
        self.pool["embedding"] = {s: v.astype(np.float32) for s, v in vectors.items()}
        self.targets = {s: rng.normal(size=(len(TASKS), DIM)).astype(np.float32) for s in STEPS}
        self.pool["influence"] = {s: self.influence(s) for s in STEPS}

    def influence(self, step):
        """Inner products f32 [n, T] of raw gradients (here: not of unit length) with each task's mean unit target."""
        unit_MD = self.targets[step].astype(float)
        unit_MD /= np.linalg.norm(unit_MD, axis=1, keepdims=True)
        means = [unit_MD[task == TASKS].mean(0) for task in np.unique(TASKS)]
        # a row at a time: BLAS would round equal rows apart
        rows = [[row @ mean for mean in means] for row in self.pool["gradient"][step].astype(float)]
        return np.array(rows).astype(np.float32)

    def key(self, kind, step, dim, **changes):
        facts = {"kind": kind, "dim": dim, "pool": "p" * 16, "model": f"model{step}", "checkpoint": step}
        return FeatureKey(**(facts | {"recipe": recipe_text(mode="adam", seed=0)} | changes))

    def write(self, root, kinds=KINDS, parts=3, shuffle=0, rows=None, dtype="float32"):
        """Write the features under `root/features`, rows shuffled, and the targets under `root/targets`."""
        order = np.random.default_rng(shuffle).permutation(self.n if rows is None else rows)
        for kind in kinds:
            for step, vec in self.pool[kind].items():
                norm = np.linalg.norm(self.pool["gradient"][step], axis=1) if kind == "influence" else None
                more = {"targets": {"tasks": np.unique(TASKS).tolist(), "digest": "t"}} if kind == "influence" else {}
                key = self.key(kind, step, vec.shape[1], recipe=recipe_text(mode="adam", seed=0, **more))
                for p, rows_of_part in enumerate(np.array_split(order, parts)):
                    norms = None if norm is None else norm[rows_of_part]
                    batch = FeatureBatch(
                        self.ids[rows_of_part], np.full(len(rows_of_part), 9, np.int32), vec[rows_of_part], norm=norms
                    )
                    write_shard(root / "features", key, f"part-{p}", batch, dtype)
        self.write_targets(root)
        return root

    def write_targets(self, root, **changes):
        recipe = {"recipe": recipe_text(mode="sgd", seed=0), "pool": "t" * 16}
        for step, vec in self.targets.items():
            ids = np.arange(len(TASKS), dtype=np.uint64)
            batch = FeatureBatch(ids, np.full(len(ids), 9, np.int32), vec, TASKS)
            key = self.key("gradient", step, DIM, **(recipe | changes))
            write_shard(root / "targets", key, "part-0", batch, "float32")

    def view(self, root, needs, order=None, **options):
        order = np.arange(self.n) if order is None else order
        columns = {n: c[order] for n, c in self.columns.items()}
        where = {"features_root": str(root / "features"), "targets_root": str(root / "targets")}
        return View(self.ids[order], columns, needs=needs, **(where | options))


def scienceqa_fields(rng, n):
    """Fields of ScienceQA's records, as the pool keeps them; topics and subjects cut across skills here."""
    choices = np.empty(n, object)
    choices[:] = [["a"] * k for k in rng.integers(2, 6, n)]
    return {
        "skill": np.array([f"skill {k}" for k in rng.integers(0, 9, n) ** 2 // 7], object),
        "topic": np.array([f"topic {k}" for k in rng.integers(0, 12, n) ** 2 // 9], object),
        "subject": np.array([f"subject {k}" for k in rng.integers(0, 5, n) ** 3 // 9], object),
        "grade": np.array([f"grade{k}" for k in rng.integers(1, 13, n)], object),
        "choices": choices,
        "solution": np.array(["x" * k for k in rng.integers(0, 6, n)], object),
    }


@pytest.fixture(scope="session")
def world():
    return World()


@pytest.fixture(scope="session")
def written(world, tmp_path_factory):
    """The world's features in three parts."""
    return world.write(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def small():
    return World(32, 5)


@pytest.fixture(scope="session")
def small_written(small, tmp_path_factory):
    return small.write(tmp_path_factory.mktemp("small"))
