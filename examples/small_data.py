"""What the examples work on: some real questions of easy-VQA (a PyPI package), and a tiny LLaVA of random weights.

Every example takes the folder to work in as its only argument (`runs/examples`, if left out), and finds there what another
one made.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import vinnow
from vinnow.pipelines.demo.easy_vqa import DemoDataConfig, build

PICTURES = DemoDataConfig(pictures=30, text_rows=10, test_per_task=10, target_rows=8, damage=False)


class Small(NamedTuple):
    """A pool to choose from, a pool of colour questions to aim at, a model's folder, and the folder to work in."""

    pool: vinnow.OpenPool
    target: vinnow.OpenPool
    model: str
    folder: str


def small_data() -> Small:
    """Make what is not there yet, in some seconds."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples").absolute()
    data = build(str(folder / "data"), PICTURES)
    pool = vinnow.ingest(data.train, str(folder / "pool"), data.images)
    target = vinnow.ingest(data.target, str(folder / "target"), data.images)
    model = folder / "model"
    if not model.exists():
        vinnow.tiny_model(pool, str(model))
    return Small(pool, target, str(model), str(folder))
