"""Records of any known format → POOL + REFUSED, streaming: every input row ends in one of them."""

import os
import re
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pyarrow.fs as pafs
from pydantic import Field

from ..store.config import Config
from ..store.errors import InputError
from ..store.files import exists, join, open_fs, read_json, write_json
from ..store.ids import IdGiver, ids_digest
from .checks import Checked, RefusedError, check_record, source_of
from .formats.registry import FORMATS, choose, facts
from .formats.source import Source
from .images import MAX_PIXELS, PIL_LIMIT, ImageError, load_image, resolve
from .records import image_value
from .writer import PoolWriter

MANIFEST = "pool.json"
_OURS = re.compile(r"(part-\d{6}\.parquet|refused\.parquet|pool\.json)(\.tmp-[0-9a-f]+)?")
# rows under way between parser and picture checks: enough to keep the threads busy, a few MB
_WINDOW = 1024


class IngestConfig(Config):
    """Where records and pictures lie and how strictly they are read.

    `check_images`: decode every picture now (else only see that the file is there). `duplicates`: exact
    repeats are normal in mix665k; `refuse` lists them instead. `strict`: the first bad row ends the run.
    `format`: auto, or one of `formats/registry.py`; `split` and `layout` (qcm, qcm-lea or test) are for formats that
    have them. `threads` decode pictures; they and `strict` leave the pool's content alone, so another value of them is
    no other pool.
    """

    source: str
    image_root: str | None = None
    format: str = "auto"
    split: str | None = None
    layout: Literal["qcm", "qcm-lea", "test"] | None = None
    check_images: bool = True
    duplicates: Literal["keep", "refuse"] = "keep"
    max_pixels: int = Field(MAX_PIXELS, ge=1, le=PIL_LIMIT)
    strict: bool = False
    threads: int = Field(4, ge=1)


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


@dataclass(frozen=True)
class Examined:
    """One input row after all checks: `found` is its record, or the error that refuses it."""

    row: int
    sample_id: int | None
    source: str
    found: Checked | RefusedError | ImageError


def ingest(config: IngestConfig, out: str, progress: Callable[[int], None] | None = None) -> IngestReport:
    """Write `out/part-*.parquet`, `out/refused.parquet` and, last, `out/pool.json`.

    The same ingest again does nothing; what a killed one left is replaced. `progress` is called with the rows
    done.

    Raises:
        InputError: the source cannot be read, `strict` met a bad row, no row is usable, or `out` holds a pool
            of another source or config.
    """
    config = settle(config)
    before = _finished(config, out)
    if before is not None:
        return before
    start, stamp = time.perf_counter(), _identity(config)
    _clear(out)
    report, writer, ids = IngestReport(image_root=_absolute(config.image_root)), PoolWriter(out), array("Q")
    sources, tasks, reasons = Counter[str](), Counter[str](), Counter[str]()
    for at in examine_rows(config):
        if isinstance(at.found, Checked):
            ids.append(at.sample_id)
            sources[at.found.source] += 1
            tasks[at.found.task] += 1
            writer.add(at.sample_id, at.found)
        else:
            if config.strict:
                raise InputError(_strict_message(config, f"row {at.row}: {at.found.reason}: {at.found}"))
            reasons[at.found.reason] += 1
            writer.refuse(at.sample_id, at.source, at.row, at.found)
        if progress and at.row % 256 == 255:
            progress(at.row + 1)
    writer.close()
    if not ids:
        raise InputError(f"{config.source}: no usable record; refused: {dict(reasons)}. See `vinnow doctor`.")
    report.digest, report.rows, report.refused = ids_digest(ids), len(ids), sum(reasons.values())
    report.by_source, report.by_task, report.reasons = dict(sources), dict(tasks), dict(reasons)
    report.seconds = round(time.perf_counter() - start, 3)
    if progress:
        progress(report.rows + report.refused)
    write_json(join(out, MANIFEST), asdict(report) | {"made_from": stamp})
    return report


def settle(config: IngestConfig) -> IngestConfig:
    """Return the config with its format found, and with the image root that the format implies if none is given.

    Raises:
        InputError: the source is missing or in no known format, or an option means nothing in it.
    """
    found = choose(_source(config), config.format)
    root = config.image_root if config.image_root is not None else found.root(_source(config))
    return config.model_copy(update={"format": found.name, "image_root": root})


def read_records(config: IngestConfig) -> Iterator[Any]:
    """Yield the source's raw records, in LLaVA's keys; a `RefusedError` stands for a row that has none."""
    config = settle(config)
    return FORMATS[config.format].read(_source(config))


def _source(config: IngestConfig) -> Source:
    return Source(config.source, config.image_root, config.split, config.layout)


def examine_rows(config: IngestConfig) -> Iterator[Examined]:
    """Check every row of a source and yield them in order; threads look at the pictures, each picture once.

    Memory grows only by 16 bytes of content hash a row and a number a distinct picture, whatever the source's
    size.
    """
    config = settle(config)
    examiner, waiting = _Examiner(config), deque[tuple[int, Any, Future[None] | None]]()
    try:
        for row, raw in enumerate(read_records(config)):
            waiting.append((row, *examiner.begin(raw)))
            if len(waiting) >= _WINDOW:
                yield examiner.end(*waiting.popleft())
        while waiting:
            yield examiner.end(*waiting.popleft())
    finally:
        examiner.threads.shutdown(cancel_futures=True)


class _Examiner:
    """Checks rows in two halves, so that pictures are decoded while the parser goes on."""

    def __init__(self, config: IngestConfig) -> None:
        self.config, self.ids = config, IdGiver()
        self.sound = set[int]()  # hashes of the image paths that passed: mix665k asks about many pictures repeatedly
        self.threads = ThreadPoolExecutor(config.threads, thread_name_prefix="pictures")

    def begin(self, raw: Any) -> tuple[Checked | tuple[str, RefusedError], Future[None] | None]:
        try:
            checked = check_record(raw)
        except RefusedError as error:
            return (source_of(raw), error), None
        unseen = [i for i in checked.images if hash(i) not in self.sound]
        return checked, self.threads.submit(self._look, unseen) if unseen else None

    def end(self, row: int, checked: Checked | tuple[str, RefusedError], look: Future[None] | None) -> Examined:
        if not isinstance(checked, Checked):
            return Examined(row, None, *checked)
        if look is not None:
            try:
                look.result()
            except ImageError as error:
                return Examined(row, None, checked.source, error)
            self.sound.update(map(hash, checked.images))
        sample_id, occurrence = self.ids.give(image_value(checked.images), checked.conversations)
        if occurrence and self.config.duplicates == "refuse":
            error = RefusedError("duplicate", f"occurrence {occurrence + 1} of this content")
            return Examined(row, sample_id, checked.source, error)
        return Examined(row, sample_id, checked.source, checked)

    def _look(self, images: list[str]) -> None:
        for image in images:
            if self.config.check_images:
                load_image(self.config.image_root, image, self.config.max_pixels)
            else:
                resolve(self.config.image_root, image)


def _identity(config: IngestConfig) -> dict[str, Any]:
    """Return what the pool's content depends on: source with size and time, image root, and the rules."""
    return facts(_source(config), FORMATS[config.format]) | {
        "source": _absolute(config.source),
        "format": config.format,
        "split": config.split,
        "layout": config.layout,
        "image_root": _absolute(config.image_root),
        "check_images": config.check_images,
        "duplicates": config.duplicates,
        "max_pixels": config.max_pixels,
    }


def _finished(config: IngestConfig, out: str) -> IngestReport | None:
    if not exists(join(out, MANIFEST)):
        return None
    saved, now = read_json(join(out, MANIFEST)), _identity(config)
    before = saved.get("made_from", {})
    changed = [f"{n}: was {before.get(n)!r}, is {v!r}" for n, v in now.items() if before.get(n) != v]
    if changed:
        raise InputError(
            f"{out} holds a pool made otherwise ({'; '.join(changed)}). Use another folder, or delete this one."
        )
    report = IngestReport(**{k: saved[k] for k in IngestReport.__dataclass_fields__})
    if config.strict and report.refused:
        raise InputError(_strict_message(config, f"{report.refused} rows were refused: {report.reasons}"))
    return report


def _strict_message(config: IngestConfig, what: str) -> str:
    return f"{config.source}: {what}. Mend the source, or leave strict off: then bad rows are only listed."


def _absolute(path: str | None) -> str | None:
    return path if path is None or "://" in path else os.path.abspath(path)


def _clear(out: str) -> None:
    """Delete what a killed ingest left, by our own names only: `out` may hold other files."""
    fs, inner = open_fs(out)
    for info in fs.get_file_info(pafs.FileSelector(inner, allow_not_found=True)):
        if info.type == pafs.FileType.File and _OURS.fullmatch(info.base_name):
            fs.delete_file(info.path)
