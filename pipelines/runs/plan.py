"""The dry run: what would run, on what, how many rows, bytes and steps, and its price. Nothing is written, no Ray."""

from ...models.check import check_model
from ...store.files import join
from .ahead import Ahead, foresee
from .config import POOLS, RunConfig
from .prices import Prices
from .samples import Sample, look
from .shares import check_shares
from .stage import Planned, Planning
from .stages import stages_of


def make_plan(run: RunConfig, ahead: Ahead | None = None, checked: bool = False) -> list[Planned]:
    """List what `vinnow run` would do and has done, with the config that each stage would receive and what it would cost.

    `ahead`: what the run's folder says, where that is known already. `checked`: the model was looked at.

    Raises:
        InputError: `vinnow run` would refuse the config; a source or the model is missing, or a budget does not fit.
    """
    ahead = foresee(run) if ahead is None else ahead
    if run.model.path is not None and not checked:
        check_model(run.model.path)
    pools = [n for n in POOLS if getattr(run, n) is not None]
    check_shares(run)
    samples: dict[str, Sample] = {n: look(getattr(run, n), join(run.out, n)) for n in pools}
    if ahead.test is not None:
        samples["test"] = ahead.test
    planning = Planning(samples, Prices(run, samples), ahead.questions, ahead.test is not None)
    plan = []
    for stage in stages_of(run):
        lines = stage.estimate(planning)
        stage.stand(lines, planning)
        plan += lines
    return plan
