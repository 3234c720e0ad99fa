"""A model's answers to open questions: nothing is scored here, since none has one right answer; `judging/` scores them.

Rows are in ANSWERS, and `OUT/answers.jsonl` has them as LLaVA's scripts write them, for `vinnow judge`. A record says by
its `question_id` which question of the benchmark it is.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from ..pool.reader import Pool
from ..pool.records import Record
from ..pool.refusals import IMAGE, RefusedError
from ..store.files import join, write_lines
from ..store.reading import as_kind
from ..store.tables import ANSWERS, read_rows
from .answering import Answerer
from .answers import AnswerActor
from .benchmark import reference
from .config import EvalSpec, OpenConfig, ShardsReport
from .shards import Measurement, Progress, carry_out, make_spec

TABLE, REPORT, LINES = "answers.parquet", "answers.json", "answers.jsonl"


class OpenAnswers(Answerer):
    """What an answerer asks and writes where nothing is scored; mixed into one that says who answers."""

    FOLDER, SCHEMA = "open", ANSWERS
    # no answer is no wrong one: the judge is told that it lacks
    REFUSED_COUNT = False

    def question(self, record: Record) -> Record:
        """Return the record's first question alone, as it stands.

        Raises:
            RefusedError: it does not say which question of the benchmark it is.
        """
        if not isinstance(record.extra.get("question_id"), (int, str)):
            raise RefusedError("unscorable", "the record has no question_id, by which its answer could be judged")
        return replace(record, conversations=record.conversations[:2])

    def table(self, records: list[Record], answers: list[str]) -> pa.Table:
        """Return a shard's rows of ANSWERS."""
        rows = [
            {
                "run": self.spec.config.run,
                "task": r.task,
                "sample": str(r.sample_id),
                "question": str(r.extra["question_id"]),
                "prompt": r.conversations[0]["value"].replace(IMAGE, "").strip(),
                "answer": answer,
                "cluster": self.clusters.of(r),
            }
            for r, answer in zip(records, answers, strict=True)
        ]
        return pa.Table.from_pylist(rows, ANSWERS)


class OpenActor(OpenAnswers, AnswerActor):
    """A checkpoint answers."""


def answer_open(config: OpenConfig, out: str, progress: Progress | None = None, here: bool = False) -> ShardsReport:
    """Answer what is not answered yet, write `OUT/answers.parquet` and `OUT/answers.jsonl`, and return what was done.

    Raises: as `run.evaluate`.
    """
    return finish(make_spec(config, out, here), OpenActor, progress)


def finish(spec: EvalSpec, actor: type[Answerer], progress: Progress | None) -> ShardsReport:
    """Carry open answers out, whoever gives them, and write their lines."""
    fields = carry_out(spec, Measurement(actor, TABLE, REPORT, summary), progress)
    write_answers(spec)
    return as_kind(fields, ShardsReport, join(spec.out, REPORT), "report of open answers", "Delete it and run again.")


def write_answers(spec: EvalSpec) -> None:
    """Write `OUT/answers.jsonl` of the table, as LLaVA's scripts do."""
    rows = read_rows(join(spec.out, TABLE), ANSWERS).to_pylist()
    records = Pool(spec.config.pool).take(np.array([row["sample"] for row in rows], np.uint64))
    write_lines(join(spec.out, LINES), [_line(*pair) for pair in zip(rows, records, strict=True)])


def _line(row: dict[str, Any], record: Record) -> dict[str, Any]:
    """Return an answer as LLaVA's `model_vqa.py` writes it; what a judge holds it against is its `metadata`."""
    known = {"category": str(record.extra.get("category", record.task)), "reference": reference(record)}
    own = {"question_id": row["question"], "prompt": row["prompt"], "text": row["answer"], "model_id": row["run"]}
    return own | {"metadata": known}


def summary(table: pa.Table, _: EvalSpec) -> dict[str, Any]:
    """Return what a report says of an ANSWERS table."""
    counts = table["task"].value_counts().to_pylist()
    return {"rows_by_task": {str(c["values"]): int(c["counts"]) for c in sorted(counts, key=lambda c: c["values"])}}
