"""A checkpoint and a test pool → EVALS: parts of the pool stream through a Ray Data pool of `AnswerActor`s.

`OUT/evals.parquet` and then `OUT/evals.json` come last, and once they are there a rerun does nothing and starts no Ray.
"""

import time
from dataclasses import asdict

from ..store.files import join, write_json
from .answers import AnswerActor
from .config import EvalConfig, EvalReport
from .metrics import accuracy
from .parts import Progress, compute_parts, finished, join_parts, make_spec

TABLE, REPORT = "evals.parquet", "evals.json"


def evaluate(config: EvalConfig, out: str, progress: Progress | None = None) -> EvalReport:
    """Answer what is not answered yet, write `OUT/evals.parquet` and return what was found.

    Raises:
        KeyMismatchError: `out` holds answers of another model, pool or setting; lists what differs.
        InputError: no checkpoint, no pool, an unknown benchmark, or not one row could be asked.
    """
    start = time.perf_counter()
    spec = make_spec(config, out)
    path = join(spec.out, TABLE)
    saved = finished(spec, REPORT)
    if saved is not None:
        return EvalReport(**(saved | {"path": path}))
    names, skipped = compute_parts(spec, AnswerActor, progress)
    evals, refused = join_parts(spec, AnswerActor, names, TABLE)
    found = accuracy(evals)
    report = EvalReport(
        path,
        rows=evals.num_rows,
        refused=refused.num_rows,
        accuracy=found.overall,
        by_task=found.by_task,
        rows_by_task=found.rows_by_task,
        parts=len(names) - skipped,
        skipped_parts=skipped,
        seconds=round(time.perf_counter() - start, 3),
        key=spec.key,
    )
    write_json(join(spec.out, REPORT), asdict(report))
    return report
