"""LLaVA JSON → POOL + REFUSED, streaming: every input row ends in one of them."""

import os
import re
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow.fs as pafs

from ..store.claim import check_out, claim
from ..store.errors import InputError
from ..store.facts import read_fields
from ..store.files import exists, join, open_fs, write_json
from ..store.ids import ids_digest
from ..store.meters import count_refused
from ..store.reading import as_kind
from ..store.usage import EXPECTED, Usage
from .dedup import Likeness, counted
from .draft import Refusal
from .examine import IngestConfig, check_given_root, examine_rows, readable_again, settle, source_of_config
from .formats.registry import FORMATS, facts
from .odd import ODD
from .paths import absolute_root
from .shown import TRAITS
from .workers import tokenizer_digest
from .writer import PoolWriter

MANIFEST, REFUSED = "pool.json", "refused.parquet"
_OURS = re.compile(r"(part-\d{6}\.parquet|refused\.parquet|pool\.json)(\.tmp-[0-9a-f]+)?")
# unreadable pictures that a report names: one that is back is enough to look at all again
_LISTED = 1000
_ANEW = "Delete the pool, and ingest it again."
# of POOL as written here; a pool of another layout is made anew
_LAYOUT = 4


@dataclass
class IngestReport:
    """What an ingest left: `digest` names the pool's content; `reasons` counts the refusals.

    `duplicates`: rows that repeat another's content; `near_duplicates`: pictures that nearly repeat another file;
    `misnamed`: pictures of another format than their names say; `pictures`: those that are shown otherwise than PIL alone
    would (`shown.TRAITS`). These are 0 unless pictures were decoded. `odd`: rows that were read otherwise than they stand
    (`odd.ODD`). `unreadable`: pictures for which rows were refused, at most 1,000.
    `elsewhere`: rows of the source that lie in other shares (`share.py`).
    """

    digest: str = ""
    rows: int = 0
    refused: int = 0
    by_source: dict[str, int] = field(default_factory=dict)
    by_task: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    near_duplicates: int = 0
    misnamed: int = 0
    pictures: dict[str, int] = field(default_factory=dict)
    odd: dict[str, int] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    image_root: str | None = None
    elsewhere: int = 0
    seconds: float = 0.0


def ingest(config: IngestConfig, out: str, progress: Callable[[int], None] | None = None) -> IngestReport:
    """Write `out/part-*.parquet`, `out/refused.parquet` and, last, `out/pool.json`.

    The same ingest again does nothing, unless a picture for which a row was refused can be read by now: then all is done
    again (rows keep their ids). What a killed one left is replaced. `progress` is called with the rows
    done. Where too many rows are refused only `refused.parquet` is left.

    Raises:
        BusyError: another ingest is writing into `out`.
        InputError: the source cannot be read, or lies in `out`; the image root is not there, `strict` met a bad row, no row
            is usable or more than `max_refused` are not; `out` holds a pool of another source or config, or what no ingest
            made.
        VinnowError: a worker process died.
    """
    check_out(out, [config.source])
    unsettled, config = config, settle(config)
    before = _finished(config, out)
    if before is not None:
        return before
    with claim(out, "ingest", re.escape(MANIFEST)):
        return _ingest(unsettled, config, out, progress)


def _ingest(
    unsettled: IngestConfig, config: IngestConfig, out: str, progress: Callable[[int], None] | None
) -> IngestReport:
    check_given_root(unsettled)
    start, stamp = time.perf_counter(), _identity(config)
    _clear(out)
    report, writer, likeness, ids = IngestReport(), PoolWriter(out), Likeness(), array("Q")
    report.image_root = absolute_root(config.image_root)
    sources, tasks, reasons, odd = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    lost: Refusal | None = None
    for block in examine_rows(config):
        if config.strict and block.refused:
            bad = block.refused[0]
            raise InputError(_strict_message(config, f"row {bad.row}: {bad.reason}: {bad.detail}"))
        for counts, name in ((sources, "source"), (tasks, "task")):
            counts.update(counted(block.table[name]))
        reasons.update(r.reason for r in block.refused)
        report.unreadable += [r.image for r in block.refused if r.image is not None][: _LISTED - len(report.unreadable)]
        lost = lost or next((r for r in block.refused if r.reason not in EXPECTED), None)
        ids.frombytes(block.table["sample_id"].to_numpy().astype("<u8").tobytes())
        likeness.add(block.table)
        writer.add(block.table, block.refused)
        report.elsewhere += block.rows - block.table.num_rows - len(block.refused)
        odd.update(kind for kind, *_ in block.odd)
        if progress:
            progress(block.first + block.rows)
    writer.close()
    try:
        Usage(len(ids), reasons, join(out, REFUSED)).check(_called(config), config.max_refused)
    except InputError as error:
        _clear(out, but=REFUSED)  # it says what to mend; the rest would be no pool
        # many are often lost for one cause: the first one's words name the way out
        first = f" First, row {lost.row}: {lost.detail}" if lost else ""
        raise InputError(f"{error}{first}") from error
    count_refused("ingest", reasons)
    report.digest, report.rows, report.refused = ids_digest(ids), len(ids), sum(reasons.values())
    report.by_source, report.by_task, report.reasons = dict(sources), dict(tasks), dict(reasons)
    report.duplicates, report.near_duplicates = likeness.repeats, likeness.near()
    report.misnamed = odd["misnamed_image"]
    report.pictures = {kind: n for kind, n in odd.most_common() if kind in TRAITS}
    report.odd = {kind: n for kind, n in odd.most_common() if kind in ODD}
    report.seconds = round(time.perf_counter() - start, 3)
    write_json(join(out, MANIFEST), asdict(report) | {"made_from": stamp})
    return report


def _identity(config: IngestConfig) -> dict[str, Any]:
    """Return what the pool's content depends on: source with size and time, image root, and the rules."""
    return (
        facts(source_of_config(config), FORMATS[config.format])
        | {
            "source": _absolute(config.source),
            "format": config.format,
            "split": config.split,
            "layout": config.layout,
            "image_root": absolute_root(config.image_root),
            "check_images": config.check_images,
            "duplicates": config.duplicates,
            "max_pixels": config.max_pixels,
            "tokenizer": tokenizer_digest(config.tokenizer),
            "pool_layout": _LAYOUT,
        }
        | ({} if config.share is None else {"share": list(config.share)})
    )


def _finished(config: IngestConfig, out: str) -> IngestReport | None:
    if not exists(join(out, MANIFEST)):
        return None
    saved, now = _saved(out), _identity(config)
    before = saved["made_from"] or {}
    now |= {"share": None} if "share" in before and "share" not in now else {}
    changed = [f"{n}: was {before.get(n)!r}, is {v!r}" for n, v in now.items() if before.get(n) != v]
    if changed:
        raise InputError(
            f"{out} holds a pool made otherwise ({'; '.join(changed)}). Use another folder, or delete this one."
        )
    report = as_kind(saved, IngestReport, join(out, MANIFEST), "pool's manifest", _ANEW)
    if readable_again(config, report.unreadable):
        return None
    if config.strict and report.refused:
        raise InputError(_strict_message(config, f"{report.refused} rows were refused: {report.reasons}"))
    usage_of(report, out).check(_called(config), config.max_refused)
    return report


def _saved(out: str) -> dict[str, Any]:
    kinds = {"made_from": dict[str, Any] | None, "unreadable": list[str] | None}
    return read_fields(join(out, MANIFEST), "pool's manifest", _ANEW, **kinds)


def pictures_back(config: IngestConfig, out: str) -> list[str]:
    """Return the pictures that an ingest into `out` could not read and that can be read by now."""
    return readable_again(settle(config), _saved(out)["unreadable"] or [])


def source_since(config: IngestConfig, out: str) -> list[str]:
    """Return which of a source's facts (`files`, `size`, `mtime`) are others than when `out` was made of it.

    None are of a source that is gone: the pool has its records. Time alone changes when a file is copied.
    """
    before = _saved(out)["made_from"] or {}
    try:
        config = settle(config)
        now = facts(source_of_config(config), FORMATS[config.format])
    except InputError:
        return []
    return [n for n in ("files", "size", "mtime") if before.get(n) != now.get(n)]


def told_of(report: IngestReport) -> list[str]:
    """Return a line for each thing in which rows were read otherwise than they stand."""
    return [f"{n:,} rows: {ODD[kind]} ({kind})." for kind, n in report.odd.items() if kind in ODD]


def usage_of(report: IngestReport, out: str) -> Usage:
    """Return what became of the rows of an ingest into `out`."""
    return Usage(report.rows, report.reasons, join(out, REFUSED))


def _called(config: IngestConfig) -> str:
    """Name an ingest in words; of a share that may hold no picture of a small source, which one."""
    share = f" (its share from {config.share[0]:.2%} to {config.share[1]:.2%})" if config.share else ""
    return f"ingest of {config.source}{share}"


def _strict_message(config: IngestConfig, what: str) -> str:
    return f"{config.source}: {what}. Mend the source, or leave strict off: then bad rows are only listed."


def _absolute(path: str | None) -> str | None:
    return path if path is None or "://" in path else os.path.abspath(path)


def _clear(out: str, but: str = "") -> None:
    """Delete what an ingest that did not end well left, by our own names only: `out` may hold other files."""
    fs, inner = open_fs(out)
    for info in fs.get_file_info(pafs.FileSelector(inner, allow_not_found=True)):
        if info.type == pafs.FileType.File and _OURS.fullmatch(info.base_name) and info.base_name != but:
            fs.delete_file(info.path)
