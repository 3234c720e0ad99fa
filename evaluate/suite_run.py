"""Several benchmarks of one checkpoint, which is loaded once by each actor: their shards go through one flow.

Each benchmark has its own folder, as if it had been asked alone, so a killed suite goes on where it was, and a benchmark
that was asked before is not asked again.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ..actors.pool import Flow, Workers, run_shards
from ..store.errors import InputError
from ..store.meters import tell_parts
from .answers import AnswerActor, loaded_generator
from .config import OPEN, REPORT, TABLE, EvalConfig, EvalSpec, OpenConfig
from .open_answers import REPORT as OPEN_REPORT
from .open_answers import TABLE as OPEN_TABLE
from .open_answers import OpenActor, write_answers
from .open_answers import summary as open_summary
from .run import summary
from .shards import Measurement, Progress, claimed, done_before, make_spec, reported, shards_left


@dataclass(frozen=True)
class Job:
    """One benchmark's evaluation."""

    name: str
    spec: EvalSpec
    measurement: Measurement


def make_job(name: str, values: dict[str, Any], out: str, here: bool, digest: str) -> Job:
    """Return an evaluation of these fields; `digest` is the model's. Raises: as `make_spec`."""
    if values["benchmark"] == OPEN:
        spec = make_spec(OpenConfig.parse(values), out, here, digest)
        return Job(name, spec, Measurement(OpenActor, OPEN_TABLE, OPEN_REPORT, open_summary))
    spec = make_spec(EvalConfig.parse(values), out, here, digest)
    return Job(name, spec, Measurement(AnswerActor, TABLE, REPORT, summary))


class SuiteActor:
    """`__call__` takes a part of any of the evaluations; their checkpoint is loaded once."""

    def __init__(self, jobs: list[Job]) -> None:
        generator = loaded_generator(jobs[0].spec)
        self.stepper, self.last = generator.stepper, ""
        self.answerers = {job.name: job.measurement.actor(job.spec, generator) for job in jobs}

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Take {part, name, shard}; answer and write the shard, and return what was done."""
        if self.stepper and part["name"] != self.last:
            # many rows of short answers in one benchmark, long answers in the next: the cache would hold many long ones
            self.stepper.forget()
        self.last = part["name"]
        done = self.answerers[part["name"]].compute(part["shard"])
        return done | {"part": part["part"], "name": part["name"]}


def carry_out_all(
    jobs: Sequence[Job],
    out: str,
    progress: Progress | None = None,
    connect: Callable[[], Any] | None = None,
) -> None:
    """Answer what is not answered yet of all evaluations, and write their tables and reports; `out` has their traces.

    `connect`: starts Ray, where something is left to ask and it is not asked in this process.

    Raises:
        InputError: an evaluation lost more rows than `max_refused` allows, or cannot be done at all; the others are done.
        KeyMismatchError, BusyError: a folder holds another evaluation, or somebody is writing there; nothing is asked.
    """
    start = time.perf_counter()
    with ExitStack() as held:
        left = [job for job in jobs if done_before(job.spec, job.measurement) is None]
        for job in left:
            held.enter_context(claimed(job.spec, job.measurement))
        parts = {job.name: shards_left(job.spec, job.measurement.actor) for job in left}
        if connect and not jobs[0].spec.here and any(todo for _, todo in parts.values()):
            connect()
        _compute(left, parts, out, progress)
        failed = []
        for job in left:
            places, todo = parts[job.name]
            computed = list(places), len(places) - len(todo)
            try:
                reported(job.spec, job.measurement, computed, time.perf_counter() - start)
                if job.measurement.actor is OpenActor:
                    write_answers(job.spec)
            except InputError as error:
                failed.append((job.name, error))
    if failed:
        raise InputError(" ".join(f"{name}: {error}" for name, error in failed)) from failed[0][1]


def _compute(
    jobs: list[Job], parts: dict[str, tuple[dict[str, str], list[str]]], out: str, progress: Progress | None
) -> None:
    """Pass the shards that are left through the actors."""
    items = [
        {"part": f"{name}.{shard}", "place": f"{name}: {places[shard]}", "name": name, "shard": shard}
        for name, (places, left) in parts.items()
        for shard in left
    ]
    total = sum(len(places) for places, _ in parts.values())

    def tell(done: int, total: int) -> None:
        tell_parts("suite", done, total)
        if progress:
            progress(done, total)

    tell(total - len(items), total)
    if not items:
        return
    config = jobs[0].spec.config
    workers = Workers(
        SuiteActor, {"jobs": jobs}, config.actors, config.cpus_per_actor, config.gpus_per_actor, growing=True
    )
    flow = Flow("evaluate suite", out, "suite", inline=jobs[0].spec.here)
    for count, _ in enumerate(run_shards(items, [workers], flow), total - len(items) + 1):
        tell(count, total)
