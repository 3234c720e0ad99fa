"""What a trial was asked: its test pool at once, or, where the test set became longer since, first this and then that.

`TRIAL/eval` holds the answers to the pool that was there first; `TRIAL/eval-more/DIGEST` those to questions that came
later, each evaluated as a pool of its own (`RUN/test-more/DIGEST`). Answers that are there are never asked for again.
"""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from ...evaluate.config import REPORT, TABLE, EvalConfig, EvalReport
from ...evaluate.run import evaluate, summary_of
from ...pool.reader import Pool
from ...pool.subset import write_subset
from ...store.arrays import Array
from ...store.facts import read_fields
from ...store.files import exists, join, list_files
from ...store.folders import names, remove
from ...store.ids import ids_digest
from ...store.tables import EVALS, read_rows

FIRST, MORE = "eval", "eval-more"
# in a trial's folder: the name of its answers, and what it was made of
MADE_OF = "trial.json"
_ANEW = "Delete it and run again: its parts are there still."


def folders(trial: str) -> list[str]:
    """Return the folders of a trial's finished evaluations, the first one first."""
    later = join(trial, MORE)
    return [f for f in (join(trial, FIRST), *(join(later, n) for n in names(later))) if exists(join(f, REPORT))]


def answers(trial: str) -> pa.Table:
    """Return all answers of a trial (EVALS)."""
    return pa.concat_tables([read_rows(join(f, TABLE), EVALS) for f in folders(trial)])


def asked_of(trial: str) -> str | None:
    """Return the digest of the pool that a trial's first evaluation finished; None where none is finished."""
    path = join(trial, FIRST, REPORT)
    if not exists(path):
        return None
    return str(read_fields(path, "report of an evaluation", _ANEW, key=dict[str, Any])["key"].get("pool"))


def unasked(trial: str, test: str, out: str) -> str:
    """Return the pool of a longer test set's questions that a trial was not asked, written below `out`.

    "" where it was asked all of them, or none yet: then it is asked the whole pool.
    """
    pool, first = Pool(test), asked_of(trial)
    if first is None or first == pool.digest:
        return ""
    asked = np.array(answers(trial)["sample"].to_pylist(), dtype=np.uint64)
    left = pool.ids()[~np.isin(pool.ids(), asked)]
    return write_subset(pool, left, join(out, ids_digest(left))).root if len(left) else ""


def questions_left(trial: str, digest: str, ids: Array) -> int:
    """Return how many questions of the test pool with this digest and these ids (u64 [N]) a trial has not answered."""
    first = asked_of(trial)
    if first is None:
        return len(ids) - _answered_parts(trial, digest)
    if first == digest:
        return 0
    asked = np.array(answers(trial)["sample"].to_pylist(), dtype=np.uint64)
    return int((~np.isin(ids, asked)).sum())


def _answered_parts(trial: str, digest: str) -> int:
    """Return the answers that an evaluation of this test pool, cut off, has left: it goes on from them."""
    path = join(trial, MADE_OF)
    if not exists(path) or read_fields(path, "identity of a trial", _ANEW, test=str)["test"] != digest:
        return 0
    return sum(read_rows(f, EVALS).num_rows for f in list_files(join(trial, FIRST, "answers"), ".parquet"))


def ask(config: EvalConfig, trial: str, more: str, here: bool) -> EvalReport:
    """Ask what is not answered yet; returns what all answers come to.

    Raises: as `evaluate`.
    """
    if more:
        evaluate(config.model_copy(update={"pool": more}), join(trial, MORE, Pool(more).digest), here=here)
    first = asked_of(trial)
    if first is not None and first != Pool(config.pool).digest:
        return _together(config, trial)
    return evaluate(config, join(trial, FIRST), here=here)


def drop_unfinished(trial: str) -> None:
    """Drop the answers of an evaluation that was cut off: parts of a shorter test set are no parts of a longer one."""
    remove(join(trial, FIRST))


def _together(config: EvalConfig, trial: str) -> EvalReport:
    """Return the report of all answers: a benchmark's own figures (POPE's F1, say) are of all of them, no mean of parts."""
    kinds = {"refused": int, "reasons": dict[str, int], "seconds": float}
    reports = [read_fields(join(f, REPORT), "report of an evaluation", _ANEW, **kinds) for f in folders(trial)]
    table = answers(trial)
    return EvalReport(
        join(trial, FIRST, TABLE),
        table.num_rows,
        sum(r["refused"] for r in reports),
        reasons=dict(sum((Counter(r["reasons"]) for r in reports), Counter[str]())),
        seconds=sum(r["seconds"] for r in reports),
        **summary_of(table, config.pool, config.benchmark),
    )
