"""Trials that are one training: the same rows, model, recipe, seed and questions. One is trained, the others say whose.

A training reads its rows by id and draws their order from its seed (`train/order.py`), so picks that differ in rank or
score alone are the same rows.
"""

import json
import os
from dataclasses import replace
from typing import Any

import pyarrow as pa

from ....store.errors import DamagedError
from ....store.files import digest, exists, join, write_json
from ....store.folders import is_folder
from ....store.tables import EVALS
from ..answered import MADE_OF, answers
from ..trial import Trial, read_result, remember
from ..watch import RESULT


def key_of(trial: Trial) -> str:
    """Return what a trial's numbers follow from, as one text; its own name where it does not say."""
    made_of = trial.made_of or {"name": trial.name}
    return json.dumps([made_of, trial.train.seed], sort_keys=True)


def with_leaders(trials: list[Trial]) -> list[Trial]:
    """Say of each trial that is another one again which one that is; `trials` in the order in which they are to run.

    One that is finished or has begun goes before: what is there is not trained a second time. Those that an older version
    trained twice stay as they are. Answers are told apart by `run`, so each has one of its own.
    """
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(key_of(trial), []).append(trial)
    leaders: dict[str, str] = {}
    for group in (g for g in groups.values() if len(g) > 1):
        ranks = [(_rank(t), number, t) for number, t in enumerate(group)]
        first = min(ranks, key=lambda r: r[:2])[2]
        leaders |= {t.name: first.name for rank, _, t in ranks if t is not first and rank > 0}
    return [replace(t, same_as=leaders.get(t.name, "")) for t in _apart(trials)]


def _rank(trial: Trial) -> int:
    """Return 0 of a trial that is finished by its own training, 1 of one that has begun or says whose it is, else 2."""
    path = join(trial.folder, RESULT)
    if exists(path):
        return 1 if read_result(path)["same_as"] else 0
    return 1 if is_folder(join(trial.folder, "train")) else 2


def _apart(trials: list[Trial]) -> list[Trial]:
    """Give a trial that is another one again a run of its own; one that has begun keeps what it is called."""
    runs: set[str] = set()
    called: dict[str, str] = {}
    for trial in sorted(trials, key=lambda t: (not exists(join(t.folder, MADE_OF)), t.name)):
        run = trial.evaluate.run
        run = digest(run, trial.name) if run in runs else run
        runs.add(run)
        called[trial.name] = run
    return [replace(t, evaluate=t.evaluate.model_copy(update={"run": called[t.name]})) for t in trials]


def tell_same(trials: list[Trial]) -> list[str]:
    """Write the result of each trial that is another one again, and has none, where that one is finished; return them."""
    by_name, told = {t.name: t for t in trials}, []
    for trial in trials:
        if not trial.same_as or exists(join(trial.folder, RESULT)):
            continue
        leader = join(by_name[trial.same_as].folder, RESULT)
        if exists(leader):
            remember(trial)
            write_json(join(trial.folder, RESULT), _as(trial, read_result(leader)))
            told.append(trial.name)
    return told


def _as(trial: Trial, result: dict[str, Any]) -> dict[str, Any]:
    """Return another trial's result as this one's: its seconds are what the training took, once, there."""
    own = {n: getattr(trial, n) for n in ("name", "selector", "budget", "seed", "variant")}
    return result | own | {"run": trial.evaluate.run, "same_as": result["same_as"] or trial.same_as}


def answers_of(trial: Trial) -> pa.Table:
    """Return all answers of a finished trial (EVALS), by its own run.

    Raises:
        DamagedError: it is another one again, and that one's answers are gone.
    """
    result = read_result(join(trial.folder, RESULT))
    if not result["same_as"]:
        return answers(trial.folder)
    there = join(os.path.dirname(trial.folder), result["same_as"])
    if not exists(join(there, RESULT)):
        raise DamagedError(
            f"{join(trial.folder, RESULT)!r} says that this trial is {result['same_as']} again, which is not there. "
            "Delete it and run again."
        )
    table = answers(there)
    run = pa.array([trial.evaluate.run] * table.num_rows, pa.string())
    return table.set_column(table.schema.get_field_index("run"), EVALS.field("run"), run)


def same_lines(trials: list[Trial]) -> list[str]:
    """Return a line for each trial that is another one again."""
    first: dict[str, str] = {}
    lines = []
    for trial in trials:
        same = trial.same_as or first.setdefault(key_of(trial), trial.name)
        if same != trial.name:
            how = "trained once" if trial.same_as else "trained twice, by an older version; one result, not two"
            lines.append(f"{trial.name} is {same} again, the same rows trained in the same way: {how}")
    return lines
