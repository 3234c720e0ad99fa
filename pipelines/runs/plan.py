"""The dry run: what would run, on what, how many rows, bytes and steps, and its price. Nothing is written, no Ray."""

from ...models.check import check_model
from ...store.files import exists, join
from ...store.manifest import read_stage
from .config import POOLS, RunConfig
from .prices import Prices
from .samples import Sample, look
from .stage import Planned, Planning, manifest_path
from .stages import stages_of


def make_plan(run: RunConfig) -> list[Planned]:
    """List what `vinnow run` would do, with the config that each stage would receive and what it would cost.

    Raises:
        InputError: a source or the model is missing, or a budget does not fit the pool.
    """
    if run.model.path is not None:
        check_model(run.model.path)
    pools = [n for n in POOLS if getattr(run, n) is not None]
    samples: dict[str, Sample] = {n: look(getattr(run, n), join(run.out, n)) for n in pools}
    planning = Planning(samples, Prices(run, samples))
    plan = []
    for stage in stages_of(run):
        path = manifest_path(run.out, stage.name)
        done = exists(path) and stage.finished(read_stage(path), path)
        for line in stage.estimate(planning):
            line.done = done and line.stage == stage.name
            plan.append(line)
    return plan
