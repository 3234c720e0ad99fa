"""A run's folder is opened: its config is saved, or grows, and one that would redo what is there is refused.

`run.json` holds the config as it is now; `history` those before it, each with when it ended and what then changed.
"""

from contextlib import suppress
from typing import Any

from ... import __version__
from ...store.errors import InputError
from ...store.files import exists, join, write_json
from ...store.manifest import Manifest, utc_now
from ..progress import console
from . import select_stage, sweep_stage
from .config import RunConfig, parsed, saved_run
from .growth import Growth, compare, counted
from .identity import differences
from .longer_test import check_longer
from .stage import Run, State
from .stages import stages_of


def start(config: RunConfig) -> Run:
    """Open a run's folder: save the resolved config, or go on with a run that is there, which may have grown since.

    Raises:
        InputError: stages that have begun would have to be made anew; names them and the fields.
    """
    saved = join(config.out, "run.json")
    run = Run(config, Manifest(config.out, __version__))
    tree = {"digest": config.digest(), "config": config.model_dump(mode="json"), "version": __version__}
    if not exists(saved):
        write_json(saved, tree)
        return run
    before = saved_run(config.out)
    earlier = parsed(before, config.out)
    if before["digest"] == tree["digest"] or earlier.digest() == tree["digest"]:
        return run
    growth = growth_of(config, earlier, before.get("history") or [])
    if growth.redone:
        raise InputError(refusal(config.out, growth))
    if growth.longer:
        check_longer(config.out, config.test)
    earlier = earlier.model_copy(update={"out": config.out})
    for adopt in (select_stage.adopt, sweep_stage.adopt):
        adopt(Run(earlier, run.manifest))
    for line in growth.lines():
        console.print(line, markup=False, soft_wrap=True)
    write_json(saved, tree | {"history": [*(before.get("history") or []), _ended(before, tree["config"])]})
    return run


def growth_of(config: RunConfig, earlier: RunConfig, history: list[dict[str, Any]]) -> Growth:
    """Return what a config means for the run in its `out`, which has the config `earlier`, and had those of `history`."""
    states: dict[str, State] = {}
    for stage in stages_of(config):
        states |= stage.states(config.out)
    configs = []
    for entry in history:
        with suppress(
            InputError
        ):  # of a version whose fields this one lacks; what it made says itself what it is made of
            configs.append(parsed(entry, config.out))
    return compare(earlier, config, states, configs)


def foreseen(config: RunConfig) -> Growth:
    """Return what a config means for the run that is in its `out`, if there is one; nothing is written.

    Raises:
        InputError: `start` would refuse it, in the same words.
    """
    if not exists(join(config.out, "run.json")):
        return Growth()
    before = saved_run(config.out)
    growth = growth_of(config, parsed(before, config.out), before.get("history") or [])
    if growth.redone:
        raise InputError(refusal(config.out, growth))
    return growth


def refusal(out: str, growth: Growth) -> str:
    """Return what to say of a config that would redo what is there."""
    return (
        f"{out}: this run was started with another config: {'; '.join(growth.why[:8])}. With that, these would be made "
        f"anew: {counted(growth.redone)}. Use another `out`, or delete that folder to begin again."
    )


def _ended(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    changes = [d for d in differences(before["config"], now) if not d.startswith("out: ")]
    return {n: before.get(n) for n in ("digest", "version", "config")} | {"until": utc_now(), "changes": changes}
