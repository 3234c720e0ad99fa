"""A checkpoint and a test pool → EVALS: parts of the pool stream through a Ray Data pool of `AnswerActor`s.

`OUT/answers/part-*.parquet` appear whole, so a rerun answers only what is missing; `OUT/evals.parquet` and
then `OUT/evals.json` come last, and once they are there a rerun does nothing and starts no Ray.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..models.load import model_digest
from ..pool.reader import Pool
from ..store.errors import InputError, KeyMismatchError, MissingRowsError
from ..store.files import exists, join, list_files, open_fs, read_json, write_json
from ..store.refusals import read_refused
from ..store.tables import EVALS, read_rows, write_rows
from .answers import FOLDER, FOOTER, AnswerActor
from .config import MATTERS, EvalConfig, EvalReport, EvalSpec
from .metrics import accuracy

Progress = Callable[[int, int], None]
TABLE, REPORT = "evals.parquet", "evals.json"


def evaluate(config: EvalConfig, out: str, progress: Progress | None = None) -> EvalReport:
    """Answer what is not answered yet, write `OUT/evals.parquet` and return what was found.

    Raises:
        KeyMismatchError: `out` holds answers of another model, pool or setting; lists what differs.
        InputError: no checkpoint, no pool, an unknown benchmark, or not one row could be asked.
    """
    start = time.perf_counter()
    spec = make_spec(config, out)
    if exists(join(spec.out, REPORT)):
        saved = read_json(join(spec.out, REPORT))
        _refuse_other_key(spec.out, saved["key"], spec.key)
        report = EvalReport(**(saved | {"path": join(spec.out, TABLE)}))
        report.skipped_parts, report.parts = report.skipped_parts + report.parts, 0
        return report
    names = [p.name for p in Pool(spec.config.pool).parts(spec.config.rows_per_part)]
    done = _parts_done(spec, set(names))
    report = EvalReport(join(spec.out, TABLE), key=spec.key, skipped_parts=len(done))
    tell = progress or (lambda done, total: None)
    tell(len(done), len(names))
    for _ in _stream(spec, [n for n in names if n not in done]):
        report.parts += 1
        tell(len(done) + report.parts, len(names))
    _finish(spec, names, report)
    report.seconds = round(time.perf_counter() - start, 3)
    write_json(join(spec.out, REPORT), asdict(report))
    return report


def make_spec(config: EvalConfig, out: str) -> EvalSpec:
    """Resolve what is to be answered; its key holds all that answers depend on, model and pool by digest."""
    model, pool, out = (p if "://" in p else os.path.abspath(p) for p in (config.model, config.pool, out))
    key = {name: str(getattr(config, name)) for name in MATTERS}
    key |= {"model": model_digest(model), "pool": Pool(pool).digest}
    # workers start in other folders than the driver
    config = config.model_copy(update={"model": model, "pool": pool})
    return EvalSpec(config, out, key, "cuda" if config.gpus_per_actor else "cpu")


def _stream(spec: EvalSpec, names: list[str]) -> Iterator[dict[str, Any]]:
    if not names:
        return
    import ray.data
    from ray.data import ActorPoolStrategy

    config = spec.config
    data = ray.data.from_items([{"part": n} for n in names], override_num_blocks=len(names)).map_batches(
        AnswerActor,
        batch_size=1,
        compute=ActorPoolStrategy(min_size=1, max_size=config.actors, max_tasks_in_flight_per_actor=2),
        num_cpus=config.cpus_per_actor,
        num_gpus=config.gpus_per_actor,
        fn_constructor_kwargs={"spec": spec},
    )
    yield from data.iter_rows()


def _parts_done(spec: EvalSpec, names: set[str]) -> set[str]:
    done = set()
    for path in list_files(join(spec.out, FOLDER), ".parquet"):
        fs, inner = open_fs(path)
        with fs.open_input_file(inner) as source:
            footer = (pq.read_schema(source).metadata or {}).get(FOOTER.encode(), b"{}")
        _refuse_other_key(path, json.loads(footer), spec.key)
        done.add(path.rsplit("/", 1)[1].removesuffix(".parquet"))
    if done - names:
        raise InputError(
            f"{spec.out} holds parts that this run would not write (first {min(done - names)!r}): "
            "rows_per_part was another one. Give the old rows_per_part, or another output folder."
        )
    return done


def _refuse_other_key(path: str, found: dict[str, str], wanted: dict[str, str]) -> None:
    differ = [n for n in sorted(found.keys() | wanted.keys()) if found.get(n) != wanted.get(n)]
    if differ:
        listed = "; ".join(f"{n}: {found.get(n)!r} against {wanted.get(n)!r}" for n in differ)
        raise KeyMismatchError(
            f"{path}: these answers were made otherwise (found against wanted): {listed}. Use another output folder."
        )


def _finish(spec: EvalSpec, names: list[str], report: EvalReport) -> None:
    """Join the parts into one table in the pool's order, and count."""
    evals = pa.concat_tables([read_rows(join(spec.out, FOLDER, f"{n}.parquet"), EVALS) for n in names])
    answered = np.array(evals["sample"].to_pylist(), dtype=np.uint64)
    # a part that was answered anew may have left an older list of refusals behind
    refused = np.setdiff1d(read_refused(spec.out, FOLDER)["sample_id"].to_numpy(), answered)
    missing = np.setdiff1d(Pool(spec.config.pool).ids(), np.concatenate([answered, refused.astype(np.uint64)]))
    if len(missing):
        raise MissingRowsError(
            f"{spec.out}: {len(missing)} rows of the test pool have neither answer nor refusal, first "
            f"{missing[0]}. Delete {join(spec.out, FOLDER)!r} and run again."
        )
    if not evals.num_rows:
        raise InputError(f"{spec.config.pool}: not one row could be asked; {join(spec.out, 'refused')!r} says why.")
    found = accuracy(evals)
    report.rows, report.refused = evals.num_rows, len(refused)
    report.accuracy, report.by_task, report.rows_by_task = found.overall, found.by_task, found.rows_by_task
    write_rows(report.path, evals.replace_schema_metadata({FOOTER: json.dumps(spec.key)}), EVALS)
