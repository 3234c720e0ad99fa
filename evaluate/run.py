"""`evaluate`: a test pool streams through a Ray Data actor pool; finished parts are not answered again."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from ..models.load import check_folder, model_digest
from ..pool.reader import Pool
from ..store.errors import InputError
from ..store.files import exists, join, list_files, read_json, write_json
from ..store.tables import EVALS, read_rows, write_rows
from .answers import AnswerActor
from .benchmarks import find
from .config import EvalConfig

REPORT, TABLE = "eval.json", "evals.parquet"


@dataclass
class EvalReport:
    """What an evaluation found; `accuracy` over all questions, `by_task` for each task."""

    run: str
    benchmark: str
    rows: int
    accuracy: float
    by_task: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def evaluate(config: EvalConfig, out: str, progress: Callable[[int, int], None] | None = None) -> EvalReport:
    """Answer, judge, and write `out/evals.parquet` (EVALS) and `out/eval.json`; a finished evaluation does nothing.

    Raises:
        InputError: model or pool missing, unknown benchmark, or `out` holds an evaluation of something else.
    """
    out, start = os.path.abspath(out), time.perf_counter()
    find(config.benchmark)
    check_folder(config.model)
    pool = Pool(config.pool)
    _check_same(config, pool, out)
    if exists(join(out, REPORT)):
        return EvalReport(**read_json(join(out, REPORT)))
    names = [p.name for p in pool.parts(config.rows_per_part)]
    done = {p.rsplit("/", 1)[1].removesuffix(".parquet") for p in list_files(join(out, "parts"), ".parquet")}
    todo = [n for n in names if n not in done]
    tell = progress or (lambda done, total: None)
    tell(len(names) - len(todo), len(names))
    for i in _stream(config, out, todo) if todo else ():
        tell(len(names) - len(todo) + i, len(names))
    table = pa.concat_tables([read_rows(join(out, "parts", f"{n}.parquet"), EVALS) for n in names])
    if table.num_rows != pool.rows:
        raise InputError(f"{out}: {table.num_rows} answers for {pool.rows} questions; delete {out}/parts and run again.")
    write_rows(join(out, TABLE), table, EVALS)
    report = EvalReport(
        config.run, config.benchmark, table.num_rows, float(pc.mean(table["score"]).as_py()), accuracy_by_task(table)
    )
    report.seconds = round(time.perf_counter() - start, 3)
    write_json(join(out, REPORT), asdict(report))
    return report


def accuracy_by_task(table: pa.Table) -> dict[str, float]:
    """Return the mean score of each task of an EVALS table."""
    grouped = table.group_by("task").aggregate([("score", "mean")]).sort_by("task")
    return dict(zip(grouped["task"].to_pylist(), grouped["score_mean"].to_pylist(), strict=True))


def _stream(config: EvalConfig, out: str, names: list[str]):  # noqa: ANN202 - a generator of counts
    import ray.data
    from ray.data import ActorPoolStrategy

    data = ray.data.from_items([{"part": n} for n in names], override_num_blocks=len(names)).map_batches(
        AnswerActor,
        batch_size=1,
        compute=ActorPoolStrategy(min_size=1, max_size=config.actors, max_tasks_in_flight_per_actor=2),
        num_cpus=config.cpus_per_actor,
        num_gpus=config.gpus_per_actor,
        fn_constructor_kwargs={"config": config, "out": out},
    )
    for i, _ in enumerate(data.iter_rows()):
        yield i + 1


def _check_same(config: EvalConfig, pool: Pool, out: str) -> None:
    """Answers of another model, pool or config must not be mixed in."""
    how = config.model_dump(mode="json", exclude={"model", "pool", "actors", "cpus_per_actor", "gpus_per_actor"})
    now = {"how": json.dumps(how, sort_keys=True), "model": model_digest(config.model), "pool": pool.digest}
    path = join(out, "inputs.json")
    if exists(path):
        before = read_json(path)
        wrong = [f"{k}: was {before[k]}, is {now[k]}" for k in now if before[k] != now[k]]
        if wrong:
            raise InputError(f"{out} holds another evaluation ({'; '.join(wrong)}). Use another folder, or delete it.")
    else:
        write_json(path, now)
