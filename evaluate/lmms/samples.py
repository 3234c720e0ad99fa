"""lmms-eval's per-sample files (`*_samples_TASK.jsonl`, of --log_samples) → EVALS, for comparisons by pairs.

A question is known by its `doc_hash`. lmms-eval 0.7.3 hashes nothing (the hash of null stands in every row): then by
`doc_id` and target, which is told. A picture is known where the file names it (`input_media`), or where a file of
clusters says which it is (`clusters.py`).
"""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

import pyarrow as pa
from pydantic import Field

from ...pool.json_stream import iter_lines, open_records
from ...pool.refusals import RefusedError
from ...store.claim import claim
from ...store.config import Config
from ...store.errors import DuplicateRowsError, InputError, KeyMismatchError, MissingRowsError, suggest
from ...store.facts import read_fields
from ...store.files import exists, join, look_at, write_json
from ...store.reading import shown
from ...store.tables import EVALS, write_rows
from ...store.usage import by_reason
from ..config import REPORT, TABLE
from .clusters import read_clusters

_NAME = re.compile(r"(?:.*?_)?samples_(?P<task>.+)\.jsonl")
_NO_HASH = sha256(b"null").hexdigest()
# what a row has beside its metrics
_OWN = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "token_counts", "doc_hash", "input_media"}
_OWN |= {"input"}
_ANEW = "Delete it and run again."


class SamplesConfig(Config):
    """Files of one task by one model, and which of its figures is the score."""

    files: tuple[str, ...] = Field(min_length=1, description="*_samples_TASK.jsonl; several hold other documents each.")
    metric: str = Field(
        min_length=1, description="The figure of a row; METRIC.FIELD where it holds fields. Higher is better."
    )
    most: float = Field(
        1.0, gt=0, description="The metric's highest value, by which it is divided; 100 for one in per cent."
    )
    clusters: tuple[str, ...] = Field(
        (), description="Files that say which picture a document shows, of --model_args clusters=FILE."
    )
    run: str | None = Field(
        None, min_length=1, description="What EVALS rows say of who answered; null is the files' folder."
    )


@dataclass
class SamplesReport:
    """What became of the files; `by_number`: rows known by `doc_id` and target; `no_picture`: rows without a picture named.

    `highest`: the metric's highest value in the files. `score` is the mean, of 0 to 1; `accuracy` the share of rows that
    have all of it.
    """

    path: str
    rows: int = 0
    score: float = 0.0
    accuracy: float = 0.0
    by_number: int = 0
    no_picture: int = 0
    highest: float = 0.0
    key: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Sample:
    name: str
    score: float
    answer: str
    reference: str
    cluster: str | None
    numbered: bool


def import_samples(config: SamplesConfig, out: str) -> SamplesReport:
    """Write `OUT/evals.parquet` and `OUT/evals.json` of the files, and return what the latter says.

    Raises:
        InputError: files of other tasks or folders, or rows without a number under the metric's name (all are counted, by
            reason). DuplicateRowsError: a document twice. MissingRowsError: no row. KeyMismatchError: `out` holds another.
    """
    out = out if "://" in out else os.path.abspath(out)
    task, run = _task(config.files), config.run or _folder(config.files)
    with claim(out, "import-lmms", inputs=config.files):
        samples, digests = _read(config, read_clusters(config.clusters, task))
        key = {"task": task, "metric": config.metric, "most": config.most, "run": run, "files": digests}
        _refuse_other(join(out, REPORT), key)
        write_rows(join(out, TABLE), _table(samples, task, config, run), EVALS)
        report = SamplesReport(
            path=join(out, TABLE),
            rows=len(samples),
            score=sum(s.score for s in samples) / len(samples),
            accuracy=sum(s.score == 1 for s in samples) / len(samples),
            by_number=sum(s.numbered for s in samples),
            no_picture=sum(s.cluster is None for s in samples),
            highest=max(s.score for s in samples) * config.most,
            key=key,
        )
        write_json(join(out, REPORT), asdict(report))
    return report


def _task(files: Sequence[str]) -> str:
    """Return the task that all files are of, by their names."""
    tasks = dict[str, str]()
    for path in files:
        match = _NAME.fullmatch(os.path.basename(path))
        if match is None:
            raise InputError(
                f"{path!r} is no per-sample file of lmms-eval: its name is …_samples_TASK.jsonl (--log_samples)."
            )
        tasks.setdefault(match["task"], path)
    if len(tasks) > 1:
        raise InputError(
            f"these are of {len(tasks)} tasks ({', '.join(sorted(tasks))}): import each into a folder of its own."
        )
    return next(iter(tasks))


def _folder(files: Sequence[str]) -> str:
    names = {os.path.basename(os.path.dirname(os.path.abspath(path))) for path in files}
    if len(names) > 1:
        raise InputError(
            f"these lie in several folders ({', '.join(sorted(names))}): --run NAME says which model answered."
        )
    return next(iter(names)) or "lmms-eval"


def _read(config: SamplesConfig, pictures: Mapping[int, str]) -> tuple[list[_Sample], list[str]]:
    """Return the rows of all files, and a digest of each file's, sorted."""
    samples, bad, places, digests = list[_Sample](), list[tuple[str, str]](), dict[str, str](), list[str]()
    for path in config.files:
        digest = sha256()
        for where, row in _lines(path):
            try:
                sample = _sample(row, config, pictures)
            except RefusedError as error:
                bad.append((error.reason, f"{where}: {error}"))
                continue
            if sample.name in places:
                raise DuplicateRowsError(
                    f"{where}: document {row['doc_id']} is there already ({places[sample.name]}). One model's "
                    "answers to one task have a document once; a task with several filters, or --repeats, does not fit."
                )
            places[sample.name] = where
            samples.append(sample)
            digest.update(repr((sample.name, sample.score, sample.answer, sample.cluster)).encode())
        digests.append(digest.hexdigest()[:16])
    if bad:
        counts = by_reason(Counter(reason for reason, _ in bad))
        raise InputError(f"{len(bad)} of {len(bad) + len(samples)} rows cannot be used ({counts}), first {bad[0][1]}")
    if not samples:
        raise MissingRowsError(f"{config.files[0]!r} holds no answers.")
    return samples, sorted(digests)


def _lines(path: str) -> Iterator[tuple[str, Any]]:
    if not exists(path):
        raise InputError(f"there is no {path!r}.")
    if not look_at(path).size:
        raise MissingRowsError(f"{path!r} is empty: lmms-eval was cut off before it wrote its samples.")
    with open_records(path) as stream:
        for number, row in enumerate(iter_lines(path, stream), 1):
            yield f"{path}, row {number}", row


def _sample(row: Any, config: SamplesConfig, pictures: Mapping[int, str]) -> _Sample:
    """Raises: RefusedError: a line is broken, or has no document or no number under the metric's name."""
    if isinstance(row, RefusedError):
        raise row
    if not isinstance(row, dict):
        raise RefusedError("not_an_object", f"it holds {shown(row)}")
    lacking = [n for n in ("doc_id", "doc_hash", "target", "filtered_resps") if row.get(n) is None]
    if lacking or not isinstance(row["doc_hash"], str):
        raise RefusedError(
            "not_an_object", f"it has no {lacking[0] if lacking else 'doc_hash'}, as lmms-eval's rows have"
        )
    target, numbered = _text(row["target"]), row["doc_hash"] == _NO_HASH
    name = f"{row['doc_id']}:{sha256(target.encode()).hexdigest()[:16]}" if numbered else row["doc_hash"]
    score = _number(row, config.metric) / config.most
    if not 0 <= score <= 1:
        raise RefusedError(
            "unscorable",
            f"{config.metric} is {score * config.most:g}, not from 0 to {config.most:g}: --most names the highest",
        )
    known = pictures.get(row["doc_id"]) if isinstance(row["doc_id"], int) else None
    cluster = _picture(row) if known is None else f"pixels:{known}"
    return _Sample(name, score, _text(row["filtered_resps"]), target, cluster, numbered)


def _number(row: dict[str, Any], metric: str) -> float:
    value: Any = row
    # a metric's own name may hold dots
    for part in [metric] if metric in row else metric.split("."):
        if not isinstance(value, dict) or part not in value:
            raise RefusedError("unscorable", f"it has no {metric!r}{suggest(metric, _numbers(row))}")
        value = value[part]
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    fields = [name for name in _numbers(row) if name.startswith(f"{metric}.")]
    way_out = f"; name one of its numbers: {', '.join(fields)}" if fields else ""
    raise RefusedError("unscorable", f"{metric} is {shown(value)}, no number{way_out}")


def _numbers(row: dict[str, Any]) -> list[str]:
    """Return what could be a metric: names of numbers, those one level down as METRIC.FIELD."""
    names = list[str]()
    for name, value in row.items():
        if name not in _OWN:
            inner = value.items() if isinstance(value, dict) else ()
            names += [name] if isinstance(value, (int, float)) else []
            names += [f"{name}.{n}" for n, v in inner if isinstance(v, (int, float))]
    return names


def _picture(row: dict[str, Any]) -> str | None:
    """Return the first picture that a row names: by its content where that stands there, else by its path."""
    media = row.get("input_media")
    if not isinstance(media, list) or not media or not isinstance(media[0], str):
        return None
    inside = media[0].startswith("data:")
    return f"hash:{sha256(media[0].encode()).hexdigest()[:32]}" if inside else f"path:{_text(media[0])}"


def _text(value: Any) -> str:
    """Return a value as the table's text, which holds no half of a surrogate pair."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode(errors="replace").decode()


def _table(samples: Sequence[_Sample], task: str, config: SamplesConfig, run: str) -> pa.Table:
    # scores on another scale are another benchmark's: comparing refuses them
    scale = "" if config.most == 1 else f" of {config.most:g}"
    rows = [
        {
            "run": run,
            "benchmark": f"lmms-eval {task} {config.metric}{scale}",
            "task": task,
            "sample": s.name,
            "correct": s.score == 1,
            "score": s.score,
            "answer": s.answer,
            "reference": s.reference,
            "cluster": s.cluster,
        }
        for s in samples
    ]
    return pa.Table.from_pylist(rows, EVALS)


def _refuse_other(path: str, key: dict[str, Any]) -> None:
    if not exists(path):
        return
    before = read_fields(path, "report of an import", _ANEW, key=dict[str, Any])["key"]
    if differ := [n for n in sorted(before.keys() | key.keys()) if before.get(n) != key.get(n)]:
        raise KeyMismatchError(
            f"{path}: other answers lie here ({', '.join(differ)} differ). Use another output folder."
        )
