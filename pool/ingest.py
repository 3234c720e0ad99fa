"""LLaVA JSON → POOL + REFUSED, streaming: every input row ends in one of them."""

import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.fs as pafs
from pydantic import Field

from ..store.config import Config
from ..store.errors import InputError
from ..store.files import exists, join, list_files, open_fs, read_json, write_json
from ..store.ids import IdGiver, ids_digest
from ..store.tables import POOL, REFUSED, write_rows
from .checks import Checked, RefusedError, check_record
from .images import MAX_PIXELS, ImageError, load_image, resolve
from .json_stream import iter_records

PART_ROWS = 8192
MANIFEST = "pool.json"


class IngestConfig(Config):
    """Where records and pictures lie and how strictly they are read.

    `check_images`: decode every picture now (else only that the file is there). `duplicates`: exact repeats are normal in
    mix665k; `refuse` lists them instead. `strict`: the first bad row ends the run.
    """

    source: str
    image_root: str | None = None
    check_images: bool = True
    duplicates: Literal["keep", "refuse"] = "keep"
    max_pixels: int = Field(MAX_PIXELS, ge=1)
    strict: bool = False
    threads: int = Field(2, ge=1)


@dataclass
class IngestReport:
    """What an ingest left: `digest` names the pool's content; `reasons` counts the refusals."""

    digest: str = ""
    rows: int = 0
    refused: int = 0
    by_source: dict[str, int] = field(default_factory=dict)
    by_task: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    image_root: str | None = None
    seconds: float = 0.0


def ingest(config: IngestConfig, out: str, progress: Callable[[int], None] | None = None) -> IngestReport:
    """Write `out/part-*.parquet`, `out/refused.parquet` and, last, `out/pool.json`.

    The same ingest again does nothing; what a killed one left is replaced.

    Raises:
        InputError: the source cannot be read, `strict` met a bad row, or `out` holds a pool of another source or config.
    """
    before = _finished(config, out)
    if before is not None:
        return before
    start = time.perf_counter()
    for path in list_files(out, ".parquet"):
        fs, inner = open_fs(path)
        fs.delete_file(inner)
    report, writer, ids = IngestReport(image_root=_absolute(config.image_root)), _Writer(out), []
    sources, tasks, reasons = Counter[str](), Counter[str](), Counter[str]()
    for row, sample_id, found in examine_rows(config):
        if isinstance(found, Checked):
            ids.append(sample_id)
            sources[found.source] += 1
            tasks[found.task] += 1
            writer.add(sample_id, found)
        else:
            if config.strict:
                raise InputError(
                    f"{config.source}: row {row}: {found.reason}: {found}. Without strict it is only listed."
                )
            reasons[found.reason] += 1
            writer.refuse(sample_id, row, found)
        if progress and row % 256 == 255:
            progress(row + 1)
    if not ids:
        raise InputError(f"{config.source}: no usable record; refused: {dict(reasons)}. See `vinnow doctor`.")
    writer.close()
    report.digest, report.rows, report.refused = ids_digest(ids), len(ids), sum(reasons.values())
    report.by_source, report.by_task, report.reasons = dict(sources), dict(tasks), dict(reasons)
    report.seconds = round(time.perf_counter() - start, 3)
    if progress:
        progress(report.rows + report.refused)
    write_json(
        join(out, MANIFEST),
        asdict(report) | {"config": config.model_dump(), "source": source_stamp(config.source)},
    )
    return report


def examine_rows(
    config: IngestConfig,
) -> Iterator[tuple[int, int | None, Checked | RefusedError | ImageError]]:
    """Yield `(row, sample_id, record or refusal)` for each input row, in order; pictures are checked by threads."""
    giver = IdGiver()
    with ThreadPoolExecutor(config.threads) as threads:
        rows = enumerate(iter_records(config.source))
        while chunk := list(itertools.islice(rows, 512)):
            for (row, _), found in zip(
                chunk, threads.map(lambda c: _check(c[1], config), chunk), strict=True
            ):
                if not isinstance(found, Checked):
                    yield row, None, found
                    continue
                sample_id, occurrence = giver.give(found.image, found.conversations)
                if occurrence and config.duplicates == "refuse":
                    yield (
                        row,
                        sample_id,
                        RefusedError("duplicate", f"occurrence {occurrence + 1} of this content"),
                    )
                else:
                    yield row, sample_id, found


def source_stamp(path: str) -> dict[str, Any]:
    """Return size and modification time of a source: what a later ingest compares."""
    fs, inner = open_fs(path)
    info = fs.get_file_info(inner)
    return {"size": info.size, "mtime": str(info.mtime)} if info.type == pafs.FileType.File else {}


def _check(raw: Any, config: IngestConfig) -> Checked | RefusedError | ImageError:
    try:
        checked = check_record(raw)
        if checked.image is not None:
            if config.check_images:
                load_image(config.image_root, checked.image, config.max_pixels)
            else:
                resolve(config.image_root, checked.image)
        return checked
    except (RefusedError, ImageError) as error:
        return error


def _finished(config: IngestConfig, out: str) -> IngestReport | None:
    if not exists(join(out, MANIFEST)):
        return None
    saved = read_json(join(out, MANIFEST))
    now = {"config": config.model_dump(), "source": source_stamp(config.source)}
    changed = [n for n in now if saved[n] != now[n]]
    if changed:
        detail = "; ".join(f"{n}: was {saved[n]}, is {now[n]}" for n in changed)
        raise InputError(
            f"{out} holds a pool made otherwise ({detail}). Use another folder, or delete this one."
        )
    return IngestReport(**{k: saved[k] for k in IngestReport.__dataclass_fields__})


def _absolute(root: str | None) -> str | None:
    return root if root is None or "://" in root else os.path.abspath(root)


class _Writer:
    """Collects rows into parts of PART_ROWS; memory is one part, whatever the pool."""

    def __init__(self, out: str) -> None:
        self.out, self.parts = out, 0
        self.rows: list[dict[str, Any]] = []
        self.refused: list[dict[str, Any]] = []

    def add(self, sample_id: int | None, record: Checked) -> None:
        self.rows.append(
            {
                "sample_id": sample_id,
                "source": record.source,
                "task": record.task,
                "image": record.image,
                "conversations": record.conversations,
                "n_chars": sum(len(t["value"]) for t in record.conversations),
                "extra": json.dumps(record.extra, ensure_ascii=True),
            }
        )
        if len(self.rows) == PART_ROWS:
            self._flush()

    def refuse(self, sample_id: int | None, row: int, error: RefusedError | ImageError) -> None:
        detail = str(error).encode("utf-8", "backslashreplace").decode()[:500]
        self.refused.append(
            {"sample_id": sample_id, "source": "", "row": row, "reason": error.reason, "detail": detail}
        )

    def close(self) -> None:
        if self.rows:
            self._flush()
        write_rows(
            join(self.out, "refused.parquet"), pa.Table.from_pylist(self.refused, schema=REFUSED), REFUSED
        )

    def _flush(self) -> None:
        path = join(self.out, f"part-{self.parts:06d}.parquet")
        write_rows(path, pa.Table.from_pylist(self.rows, schema=POOL), POOL)
        self.rows, self.parts = [], self.parts + 1
