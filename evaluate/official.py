"""A benchmark's official files → a test pool inside of the evaluation's own folder, so that all goes on as with any pool.

`OUT/questions.jsonl` holds the records that the benchmark made of its files, `OUT/left-out.jsonl` the rows that are none,
`OUT/pool` the pool, `OUT/pictures` what lay inside of files. Pictures are not opened here: a question whose picture is
missing is in the pool, cannot be asked, and so counts as wrong.
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..pool.ingest import IngestConfig, ingest
from ..pool.reader import Pool
from ..pool.refusals import RefusedError
from ..store.claim import claim
from ..store.errors import InputError
from ..store.files import exists, join, read_bytes, write_bytes
from ..store.tables import EVALS, read_rows
from ..store.usage import MAX_REFUSED, Usage, by_reason
from . import registry
from .answering import Answerer
from .benchmark import Benchmark, Files
from .config import OPEN, TABLE
from .judging.bench import OpenBench
from .open_answers import OpenAnswers
from .run import answered
from .shards import own_pool, stage_of

QUESTIONS, LEFT_OUT, PICTURES = "questions.jsonl", "left-out.jsonl", "pictures"


@dataclass(frozen=True)
class Prepared:
    """The pool of a benchmark's files: `rows` questions; `left_out` counts the rows that are none, by reason."""

    benchmark: Benchmark
    files: Files
    pool: str
    out: str
    rows: int
    left_out: dict[str, int]

    def lines(self) -> list[str]:
        """Return what became of the files' rows, for the terminal; nothing to tell is no line."""
        if not self.left_out:
            return []
        lost = f"{sum(self.left_out.values()):,} rows of the files are no question ({by_reason(self.left_out)})"
        return [
            f"{lost}; they count nowhere, and are listed in {join(self.out, LEFT_OUT)} and {self.pool}/refused.parquet"
        ]


def prepare(name: str, folder: str, images: str | None, out: str, max_refused: float = MAX_REFUSED) -> Prepared:
    """Make `OUT/pool` of a benchmark's official files; the same again does nothing.

    `images`: the folder of its pictures; one that the benchmark knows beside its files, or theirs, if left out.

    Raises:
        InputError: no such benchmark, or one without official files; a file is missing, or not what it should be; more rows
            than `max_refused` are no question; `out` holds the questions of other files, or something else.
    """
    benchmark = OpenBench() if name == OPEN else registry.find(name)
    if not benchmark.files:
        raise InputError(f"benchmark {name!r} has no official files: ingest a test pool, and name it (--pool).")
    out, folder = (p if "://" in p else os.path.abspath(p) for p in (out, folder))
    files = Files(folder, images or _beside(benchmark, folder), join(out, PICTURES))
    stage = stage_of(OpenAnswers if name == OPEN else Answerer)
    with claim(out, stage, inputs=[folder, images]):
        rows, lost = _split(benchmark, files)
        reasons = Counter(error.reason for error in lost)
        write_bytes(join(out, LEFT_OUT), _lines([{"reason": e.reason, "detail": str(e)} for e in lost]))
        counted = {r: n for r, n in reasons.items() if r not in benchmark.left_out}
        Usage(len(rows), counted, join(out, LEFT_OUT)).check(f"files of {name} in {folder}", max_refused)
        _write_questions(join(out, QUESTIONS), _lines(rows))
        root = files.spare if benchmark.inside else files.images
        config = {"source": join(out, QUESTIONS), "format": "llava", "image_root": root, "check_images": "none"}
        report = ingest(IngestConfig.parse(config | {"max_refused": max_refused}), own_pool(out))
    return Prepared(benchmark, files, own_pool(out), out, report.rows, dict(reasons + Counter(report.reasons)))


def submit(prepared: Prepared) -> str | None:
    """Write the official submission file of an evaluation that is done; return its path, None where there is none."""
    if prepared.benchmark.name == OPEN:
        return None
    rows = answered(read_rows(join(prepared.out, TABLE), EVALS), Pool(prepared.pool))
    return prepared.benchmark.submit(rows, prepared.files, prepared.out)


def _beside(benchmark: Benchmark, folder: str) -> str:
    there = (join(folder, n) for n in benchmark.pictures if exists(join(folder, n)))
    return next(there, folder)


def _split(benchmark: Benchmark, files: Files) -> tuple[list[object], list[RefusedError]]:
    rows, lost = list[object](), list[RefusedError]()
    for row in benchmark.records(files):
        if isinstance(row, RefusedError):
            lost.append(row)
        else:
            rows.append(row)
    return rows, lost


def _lines(rows: Sequence[object]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def _write_questions(path: str, data: bytes) -> None:
    """Write the questions once: the pool is known by the time of their file."""
    if not exists(path):
        write_bytes(path, data)
    elif read_bytes(path) != data:
        raise InputError(
            f"{path!r} holds the questions of other files than these, and answers to them. Name another output folder."
        )
