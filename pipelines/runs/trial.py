"""One fine-tune and its evaluation, resumable: its folder is its name, and what it was made of lies in it.

A trial that was cut off goes on, one that is finished does nothing again, and one that is asked more answers only that.
"""

import json
import os
import time
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from ...evaluate.config import EvalConfig
from ...pool.reader import Pool
from ...store.errors import InputError
from ...store.facts import read_as, read_fields
from ...store.files import exists, join, write_json
from ...store.lock import attempt_of
from ...train.config import TrainConfig
from ...train.restarts import told
from ...train.run import REPORT, TrainReport, read_log, train
from ...train.solo import Bases, drop_states, fit_here
from .answered import MADE_OF, ask, asked_of, drop_unfinished
from .identity import differences
from .watch import LOG, RESULT

# in a trial's folder: the trial, as it was handed out last
JOB = "job.json"
_IDENTITY, _AGAIN = "identity of a trial", "Delete that trial's folder, and run again."
_RESULT = {
    **{"selector": str, "budget": str | int, "seed": int, "run": str, "rows": int, "train_seconds": float},
    **{"name": str | None, "model": str | None, "accuracy": float | None, "image_accuracy": float | None},
    **{"variant": str | None, "used": int | None, "reasons": dict[str, int] | None, "listed": str | None},
    **{"not_asked": int | None, "test": str | None, "cut_off": str | None},
    **{"same_as": str | None, "held_seconds": float | None},
    "places": dict[str, dict[str, float]] | None,
}


@dataclass(frozen=True)
class Trial:
    """One fine-tune and its evaluation. `budget` is the label as configured ("10%"), "100%" for the whole pool.

    `variant`: which of the run's fine-tunes; "" where there is one. `more`: the pool of the questions that it has not been
    asked, where it answered a shorter test set. `made_of`: what its numbers follow from. `rows`: on how many it trains.
    `same_as`: the trial that it is again, the only one of the two that is trained; "" of all others.
    """

    name: str
    selector: str
    budget: str
    seed: int
    folder: str
    train: TrainConfig
    evaluate: EvalConfig
    variant: str = ""
    more: str = ""
    made_of: dict[str, Any] = field(default_factory=dict)
    rows: int = 0
    same_as: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, to travel to Tune's workers."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("train", "evaluate")}
        return plain | {
            "train": self.train.model_dump(mode="json"),
            "evaluate": self.evaluate.model_dump(mode="json"),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Trial":
        """The inverse of `as_dict`."""
        parts = {
            "train": TrainConfig.parse(values["train"]),
            "evaluate": EvalConfig.parse(values["evaluate"]),
        }
        return cls(**(values | parts))


def read_result(path: str) -> dict[str, Any]:
    """Return a finished trial's result.

    Raises:
        DamagedError: something else lies in its place.
    """
    way_out = "Delete it and run again: the training and the answers of that trial are there still."
    return read_fields(path, "result of a trial", way_out, **_RESULT)


def run_of(folder: str, run: str, made_of: dict[str, Any]) -> str:
    """Return what a trial's answers are told apart by: `run`, or what it began as, if what it is made of is the same.

    Raises:
        InputError: the folder holds a trial made of something else; names it.
    """
    path, result = join(folder, MADE_OF), join(folder, RESULT)
    if not exists(path):  # new, or of an older version, which went on only with the config that it began with
        return str(read_result(result)["run"]) if exists(result) else run
    before = read_fields(path, _IDENTITY, _AGAIN, run=str, made_of=dict[str, Any])
    changed = differences(before["made_of"], made_of)
    if changed:
        raise InputError(
            f"{folder} holds a trial that was made otherwise, at another time of this run: {'; '.join(changed[:8])}. "
            "Use another `out`, or delete that folder to make it anew."
        )
    return before["run"]


def remember(trial: Trial) -> None:
    """Leave what a trial is made of in its folder, before it begins.

    One that was cut off while it answered a shorter test set is to answer the longer one from its beginning.
    """
    path, test = join(trial.folder, MADE_OF), Pool(trial.evaluate.pool).digest
    begun = read_fields(path, _IDENTITY, _AGAIN, test=str)["test"] if exists(path) else test
    cut_off = begun != test and asked_of(trial.folder) is None
    if cut_off:
        drop_unfinished(trial.folder)
    if cut_off or not exists(path):
        write_json(path, {"run": trial.evaluate.run, "made_of": trial.made_of, "test": test})


def leave_job(trial: Trial) -> None:
    """Leave a trial in its folder, for the worker that it is handed to."""
    write_json(join(trial.folder, JOB), trial.as_dict())


def job_of(words: str) -> dict[str, Any]:
    """Return the plain values of the trial that Tune's words tell of."""
    path = join(json.loads(words)["folder"], JOB)
    return read_as(path, dict[str, Any], "trial as it was handed out", _AGAIN)


def logged_seconds(folder: str) -> float:
    """Return the seconds of all steps in a trial's log."""
    return sum(row["seconds"] for row in read_log(join(folder, "train", LOG)))


def run_trial(values: dict[str, Any], callbacks: tuple[Any, ...] = (), bases: Bases | None = None) -> dict[str, Any]:
    """Fine-tune and evaluate one trial, write its result, return it.

    With `bases`, all of it happens in this process, on the model that it keeps; else on Ray, and `callbacks` are told.
    """
    trial = Trial.from_dict(values)
    path = join(trial.folder, RESULT)
    if exists(path):
        return read_result(path)
    with attempt_of(os.path.dirname(os.path.dirname(trial.folder))):
        remember(trial)
        return _run_trial(trial, path, callbacks, bases)


def _run_trial(trial: Trial, path: str, callbacks: tuple[Any, ...], bases: Bases | None) -> dict[str, Any]:
    begin, before = time.perf_counter(), logged_seconds(trial.folder)
    fit = None if bases is None else partial(fit_here, bases=bases)
    done = exists(join(trial.folder, "train", REPORT))  # of this trial, on however many workers it was
    place = join(trial.folder, "train")
    trained = TrainReport.read(place) if done and trial.made_of else train(trial.train, place, callbacks, fit)
    measured = ask(trial.evaluate, trial.folder, trial.more, here=bases is not None)
    result = {
        "name": trial.name,
        "selector": trial.selector,
        "budget": trial.budget,
        "seed": trial.seed,
        "variant": trial.variant,
        "run": trial.evaluate.run,
        "test": Pool(trial.evaluate.pool).digest,
        "rows": trained.rows,
        "used": trained.usage.used,
        "reasons": dict(trained.usage.refused),
        "listed": trained.usage.listed,
        "not_asked": measured.refused,
        "cut_off": told(trained.restarts),
        "steps": trained.steps,
        "loss": trained.loss,
        "train_seconds": trained.seconds,
        "eval_seconds": measured.seconds,
        "accuracy": measured.accuracy,
        "image_accuracy": measured.image_accuracy,
        "refused": {"train": trained.refused_reasons, "evaluate": measured.reasons},
        "by_task": measured.by_task,
        "model": trained.model,
        "same_as": "",
        # with the steps of tries that were cut off; what those took besides nobody knows
        "held_seconds": round(before + time.perf_counter() - begin, 3),
        "places": {
            "train": trial.train.model_dump(include={"workers", "use_gpu"}),
            "evaluate": trial.evaluate.model_dump(include={"actors", "gpus_per_actor", "cpus_per_actor"}),
        },
    }
    write_json(path, result)
    drop_states(join(trial.folder, "train"))
    return result


def plain_result(result: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers and names of a trial's result, for Tune's own files."""
    plain = {k: v for k, v in result.items() if isinstance(v, (int, float, str))}
    return plain | {f"accuracy_{k}": v for k, v in result["by_task"].items()}
