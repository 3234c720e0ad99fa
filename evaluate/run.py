"""A checkpoint and a test pool → EVALS: shards of the pool go through the flow's `AnswerActor`s.

`OUT/evals.parquet` and then `OUT/evals.json` come last, and once they are there a rerun does nothing and starts no Ray.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..pool.reader import Pool
from ..store.files import join
from ..store.reading import as_kind
from . import registry
from .answers import AnswerActor
from .benchmark import Answered
from .config import REPORT, TABLE, EvalConfig, EvalReport, EvalSpec
from .metrics import accuracy
from .shards import Measurement, Progress, carry_out, make_spec


def evaluate(config: EvalConfig, out: str, progress: Progress | None = None, here: bool = False) -> EvalReport:
    """Answer what is not answered yet, write `OUT/evals.parquet` and return what was found.

    `here`: by one actor in this process, without Ray.

    Raises:
        KeyMismatchError: `out` holds answers of another model, pool or setting; lists what differs.
        InputError: no checkpoint, no pool, an unknown benchmark, or not one row could be asked.
    """
    measurement = Measurement(AnswerActor, TABLE, REPORT, summary)
    fields = carry_out(make_spec(config, out, here), measurement, progress)
    return as_kind(fields, EvalReport, join(out, REPORT), "report of an evaluation", "Delete it and run again.")


def summary(evals: pa.Table, spec: EvalSpec) -> dict[str, Any]:
    """Return what a report says of an EVALS table."""
    return summary_of(evals, spec.config.pool, spec.config.benchmark)


def summary_of(evals: pa.Table, path: str, benchmark: str) -> dict[str, Any]:
    """Return the same of a table whose questions are in the pool of this path."""
    scored, pool = accuracy(evals), Pool(path)
    shown = [str(i) for i in pool.ids()[pool.has_image()].tolist()]
    pictured = evals.filter(pc.is_in(evals["sample"], pa.array(shown, pa.string())))
    return {
        "accuracy": scored.overall,
        "image_accuracy": accuracy(pictured).overall if pictured.num_rows else None,
        "image_rows": pictured.num_rows,
        "by_task": scored.by_task,
        "rows_by_task": scored.rows_by_task,
        "metrics": asdict(registry.find(benchmark).aggregate(answered(evals, pool))),
    }


def answered(evals: pa.Table, pool: Pool) -> list[Answered]:
    """Return the rows of an EVALS table with their records."""
    records = pool.take(np.array(evals["sample"].to_pylist(), np.uint64))
    columns = (evals[n].to_pylist() for n in ("answer", "score"))
    return [Answered(*row) for row in zip(records, *columns, strict=True)]
