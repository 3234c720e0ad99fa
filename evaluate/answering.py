"""Answering shards of a test pool, whoever answers: what is refused, scored and written, in one place.

The unit of work is one shard, written whole or not at all; refusals are listed first.
"""

import json
from abc import ABC, abstractmethod
from typing import Any

import pyarrow as pa

from ..pool.decode import Refusal
from ..pool.reader import Pool
from ..pool.records import Record
from ..pool.refusals import RefusedError
from ..store.errors import InputError
from ..store.files import join
from ..store.meters import Stopwatch, flush
from ..store.refusals import write_refused
from ..store.tables import EVALS, write_rows
from . import registry
from .benchmark import fair_score, reference
from .clusters import Clusters
from .config import EvalSpec

FOOTER = "vinnow.eval"


class Answerer(ABC):
    """`__call__` answers whole shards and writes them to `OUT/FOLDER`, as `SCHEMA`; a subclass says who answers."""

    FOLDER, SCHEMA = "answers", EVALS
    # a row that cannot be answered is a wrong answer, as in the official scripts
    REFUSED_COUNT = True

    def __init__(self, spec: EvalSpec) -> None:
        self.spec, self.watch = spec, Stopwatch(self.FOLDER)
        self.pool = Pool(spec.config.pool)
        self.clusters = Clusters(spec.config.image_root or self.pool.image_root)
        self.shards = {s.name: s for s in self.pool.shards(spec.config.rows_per_part)}

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Take {part}, its name; answer and write it, and return what was done."""
        return self.compute(part["part"])

    def compute(self, name: str) -> dict[str, Any]:
        """Answer one shard and write it; rows that cannot be asked are refused with a reason."""
        self.watch.spent("waiting")
        records = self.pool.read(self.shards[name])
        self.watch.spent("reading")
        answers, refused = self.answers(records)
        self.watch.spent("computing")
        # the list of refusals goes first: the shard's own file says that all of it is done
        write_refused(self.spec.out, self.FOLDER, 0, name, refused)
        done = [records[i] for i in sorted(answers)]
        table = self.table(done, [answers[i] for i in sorted(answers)])
        table = table.replace_schema_metadata({FOOTER: json.dumps(self.spec.key, sort_keys=True)})
        write_rows(join(self.spec.out, self.FOLDER, f"{name}.parquet"), table, self.SCHEMA)
        self.watch.spent("writing")
        flush()
        return {"part": name, "rows": len(done), "refused": len(refused)}

    @abstractmethod
    def answers(self, records: list[Record]) -> tuple[dict[int, Any], list[Refusal]]:
        """Return what `table` reads of each answered record, by its place, and the refusals: each record is in one."""

    def question(self, record: Record) -> Record:
        """Return a record as the benchmark asks it.

        Raises:
            RefusedError: the benchmark cannot ask or score it.
        """
        benchmark = registry.find(self.spec.config.benchmark)
        try:
            benchmark.check(record)
            return benchmark.ask(record)
        except InputError as error:
            raise RefusedError(getattr(error, "reason", "not_encodable"), str(error)) from error

    def table(self, records: list[Record], answers: list[Any]) -> pa.Table:
        """Return a shard's rows, of what `answers` gave."""
        name = self.spec.config.benchmark
        benchmark = registry.find(name)
        scores = [fair_score(benchmark, a, r) for a, r in zip(answers, records, strict=True)]
        return evals_of(self.spec.config.run, name, records, answers, scores, self.clusters)

    @staticmethod
    def unanswered(spec: EvalSpec, records: list[Record]) -> pa.Table:
        """Return the rows of records that could not be asked: no answer, score 0."""
        config, nothing = spec.config, [""] * len(records)
        clusters = Clusters(config.image_root or Pool(config.pool).image_root)
        return evals_of(config.run, config.benchmark, records, nothing, [0.0] * len(records), clusters)


def evals_of(
    run: str, benchmark: str, records: list[Record], answers: list[str], scores: list[float], clusters: Clusters
) -> pa.Table:
    """Return rows of EVALS, one a record."""
    columns = [
        [run] * len(records),
        [benchmark] * len(records),
        [r.task for r in records],
        [str(r.sample_id) for r in records],
        [s == 1.0 for s in scores],
        scores,
        answers,
        [reference(r) for r in records],
        [clusters.of(r) for r in records],
    ]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, EVALS, strict=True)], schema=EVALS)
