"""All checks on every row of a source, in order and in bounded memory: what ingest writes and the doctor counts.

Processes parse and check blocks of records and look at pictures; this one puts the rows back in order: it alone
numbers repeats, so that ids do not depend on how many work.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, field_validator

from ..store.arrays import Array
from ..store.config import Config
from ..store.errors import InputError
from ..store.ids import IdGiver, id_of
from ..store.tables import POOL
from ..store.usage import MAX_REFUSED
from .blocks import Block, Cutter
from .draft import Draft, Refusal, refusal
from .formats.llava import LLAVA
from .formats.registry import FORMATS, choose, facts
from .formats.source import Source
from .image_checks import LookConfig, Looks, look_at
from .images import MAX_PIXELS, PIL_LIMIT, check_root
from .json_source import open_records
from .json_stream import iter_records
from .limits import ROW_BYTES, text_size
from .paths import split_root, with_links
from .share import Share, taken
from .workers import Workers

# starting processes costs a second, which so much JSON does not take; nor what it shows, where pictures are decoded
_SMALL = {"none": 48 << 20, "exists": 48 << 20, "decode": 512 << 10}
_BATCH = 1024


class IngestConfig(Config):
    """Where records and pictures lie and how strictly they are read.

    `workers`, `threads`, `strict` and `max_refused` leave the pool's content alone: another value of them is no other pool.
    """

    source: str = Field(description="The records: a file, a folder of shards, or what the format reads.")
    image_root: str | None = Field(None, description="The folder that picture paths begin at.")
    format: str = Field("auto", description="auto, or a dataset format by its name.")
    split: str | None = Field(None, description="The split, where a source has several.")
    share: Share | None = Field(
        None,
        description="Only the rows whose place lies in [FROM, TO), from 0 to 1: a hash of the first picture's path, or of "
        "the content of a row without one. Shares that do not overlap hold a part of one source out.",
    )
    layout: Literal["qcm", "qcm-lea", "test"] | None = Field(
        None, description="ScienceQA's layout of questions, for formats that have it."
    )
    check_images: Literal["decode", "exists", "none"] = Field(
        "decode",
        description="`decode` every picture now, only see that it `exists`, or `none`: the reader will find out "
        "(true and false are decode and exists).",
    )
    duplicates: Literal["keep", "refuse"] = Field(
        "keep", description="Exact repeats, normal in mix665k, are kept; or refused, and listed."
    )
    max_pixels: int = Field(MAX_PIXELS, ge=1, le=PIL_LIMIT, description="A picture with more pixels is refused.")
    tokenizer: str | None = Field(None, description="A folder with `tokenizer.json`; it fills `n_tokens`.")
    strict: bool = Field(False, description="The first bad row ends the run.")
    follow_links: bool = Field(False, description="Symbolic links below the image root may lead out of it.")
    max_refused: float = Field(
        MAX_REFUSED, ge=0, le=1, description="The share of rows that may be refused before that is an error."
    )
    threads: int = Field(4, ge=1, description="Threads of each worker that fetch pictures from a remote root.")
    workers: int | None = Field(
        None, ge=0, le=64, description="Processes that parse and decode; null: one a core, and none for a small source."
    )

    @field_validator("share")
    @classmethod
    def _ascends(cls, share: Share | None) -> Share | None:
        if share is not None and not 0 <= share[0] < share[1] <= 1:
            raise ValueError(f"[FROM, TO] wants 0 <= FROM < TO <= 1, not {list(share)}")
        return share

    @field_validator("check_images", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        return {True: "decode", False: "exists"}[value] if isinstance(value, bool) else value


@dataclass(frozen=True)
class Examined:
    """Rows `first` to `first + rows` of the input: a POOL `table` of the sound ones in order, the others by row.
    `source_rows` [N]: the input row of each of the table's. `odd`: (what, row, which and how) of pictures that are named
    after another format, or shown otherwise than PIL alone would (`shown.TRAITS`), and of sound rows that were read
    otherwise than they stand (`odd.ODD`).
    """

    first: int
    rows: int
    table: pa.Table
    source_rows: Array
    refused: list[Refusal]
    odd: list[tuple[str, int, str]] = field(default_factory=list)


def examine_rows(config: IngestConfig) -> Iterator[Examined]:
    """Check every row of a source and yield them in order, a block at a time; a sound picture is opened once.

    Memory grows only by the content hash of a row and a number or two per distinct picture, whatever the source's size.

    Raises:
        InputError: the source cannot be read, at the row that cannot.
        VinnowError: a worker process died.
    """
    config = settle(config)
    ids, waiting = IdGiver(), deque[tuple[int, Draft]]()
    looking, ahead = config.check_images != "none", 3 if config.check_images != "none" else 1
    how = LookConfig(config.image_root, config.check_images, config.max_pixels, config.threads)
    with Workers(_workers(config), config.tokenizer, how) as workers:
        looks = Looks(workers.look if looking else None)
        try:
            for first, whole in _drafts(config, workers):
                draft = taken(config.share, first, whole)
                looks.begin(i for images in draft.table["images"].to_pylist() for i in images)
                waiting.append((first, draft))
                if len(waiting) >= ahead:
                    yield _finish(config, *waiting.popleft(), ids, looks)
        except InputError:
            # what came before a break is whole, and `strict` may find something earlier in it
            while waiting:
                yield _finish(config, *waiting.popleft(), ids, looks)
            raise
        while waiting:
            yield _finish(config, *waiting.popleft(), ids, looks)


def readable_again(config: IngestConfig, pictures: Sequence[str]) -> list[str]:
    """Return which of these pictures, refused once, can be read now; `config` is a settled one."""
    how = LookConfig(config.image_root, config.check_images, config.max_pixels, config.threads)
    looks = look_at(how, pictures) if pictures else []
    return [image for image, look in zip(pictures, looks, strict=True) if look.reason is None]


def check_given_root(config: IngestConfig) -> None:
    """See that the image root is there if one was given: a typo in it would refuse every row that has a picture.

    Raises:
        InputError: it is not.
    """
    if config.image_root is not None:
        check_root(config.image_root, config.source)


def settle(config: IngestConfig) -> IngestConfig:
    """Return the config with its format found, and with the image root that the format implies if none is given.

    Raises:
        InputError: the source is missing or in no known format, or an option means nothing in it.
    """
    source_format = choose(source_of_config(config), config.format)
    root = config.image_root if config.image_root is not None else source_format.root(source_of_config(config))
    return config.model_copy(update={"format": source_format.name, "image_root": with_links(root, config.follow_links)})


def read_records(config: IngestConfig) -> Iterator[Any]:
    """Yield the source's raw records, in LLaVA's keys; a `RefusedError` stands for a row that has none."""
    config = settle(config)
    return FORMATS[config.format].read(source_of_config(config))


def source_of_config(config: IngestConfig) -> Source:
    """Return what the formats are told of a config."""
    root = None if config.image_root is None else split_root(config.image_root)[0]
    return Source(config.source, root, config.split, config.layout)


def _drafts(config: IngestConfig, workers: Workers) -> Iterator[tuple[int, Draft]]:
    """Yield drafts with the number of their first row; what cannot be parsed ends in the error of `iter_records`."""
    if config.format != LLAVA.name:
        yield from _read_on(read_records(config), 0, workers)
    else:
        row = 0
        for path in LLAVA.files(source_of_config(config)):
            start = row
            for first, draft in _blocks(path, workers):
                row = start + first + draft.rows
                yield start + first, draft


def _blocks(source: str, workers: Workers) -> Iterator[tuple[int, Draft]]:
    with open_records(source) as stream:
        cutter = Cutter(source, stream)
        if not cutter.known:
            yield from _read_on(iter_records(source), 0, workers)
            return
        blocks, waiting, row = cutter.blocks(), deque[tuple[Block, bool, Future[Draft]]](), 0
        while True:
            while len(waiting) < workers.window and (item := next(blocks, None)):
                waiting.append((*item, workers.submit(item[0])))
            if not waiting:
                break
            block, last, future = waiting.popleft()
            draft = future.result()
            whole = draft.ended == ("closed" if last and not block.lines else "more")
            if draft.ended == "closed" and not last:
                draft = None  # text behind the array, most likely
            if draft is not None:
                yield row, draft
                row += draft.rows
            if whole and last:
                return
            if not whole:
                offset = 0 if draft is None else draft.offset if draft.ended == "stuck" else len(block.data)
                unread = [block.data[offset:], *(b.data for b, _, _ in waiting)]
                for *_, under_way in waiting:
                    under_way.cancel()
                yield from _read_on(cutter.read_on(unread, row), row, workers)
                return
        yield from _read_on(cutter.read_on([], row), row, workers)


def _read_on(records: Iterable[object], row: int, workers: Workers) -> Iterator[tuple[int, Draft]]:
    """Draft parsed records in this process; those before an error come first."""
    held: list[object] = []
    size = 0
    try:
        for raw in records:
            held.append(raw)
            size += text_size(raw)
            if len(held) == _BATCH or size > ROW_BYTES:
                yield row, workers.draft(held)
                row, held, size = row + len(held), [], 0
    except InputError:
        yield row, workers.draft(held)
        raise
    yield row, workers.draft(held)


def _finish(config: IngestConfig, first: int, draft: Draft, ids: IdGiver, looks: Looks) -> Examined:
    """Give ids, in order, to the rows whose pictures are sound."""
    refused = [replace(r, row=first + r.row) for r in draft.refused]
    keep, sample_ids, first_ids, hashes, odd = [], [], [], [], []
    columns = [draft.table[n].to_pylist() for n in ("row", "source", "images", "content")]
    for n, (row, source, images, content) in enumerate(zip(*columns)):
        seen = [looks.end(image) for image in images]
        wrong = next(((image, look) for image, look in zip(images, seen, strict=True) if look.reason is not None), None)
        if wrong is not None:
            image, look = wrong
            refused.append(replace(refusal(first + row, source, str(look.reason), look.detail), image=image))
            continue
        named = zip(images, seen, strict=True)
        odd += [(kind, first + row, f"{image!r} {how}".strip()) for image, look in named for kind, how in look.odd]
        sample_id, occurrence = ids.give_to(content)
        if occurrence and config.duplicates == "refuse":
            detail = f"occurrence {occurrence + 1} of this content"
            refused.append(refusal(first + row, source, "duplicate", detail, sample_id))
            continue
        odd += [(kind, first + row, which) for kind, which in draft.odd.get(row, ())]
        keep.append(n)
        sample_ids.append(sample_id)
        first_ids.append(id_of(content, 0) if occurrence else None)
        hashes.append(seen[0].image_hash if seen else None)
    table = draft.table if len(keep) == draft.table.num_rows else draft.table.take(pa.array(keep, pa.int64()))
    columns = {"sample_id": sample_ids, "duplicate_of": first_ids, "image_hash": hashes}
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else table[f.name] for f in POOL]
    refused.sort(key=lambda r: r.row)
    row_N = first + table["row"].to_numpy()
    return Examined(first, draft.rows, pa.table(arrays, schema=POOL), row_N, refused, odd)


def _workers(config: IngestConfig) -> int:
    if config.workers is not None:
        return config.workers
    if config.format != LLAVA.name and config.check_images != "decode":
        return 0  # blocks of LLaVA's JSON are parsed by others, records of other formats here
    size = facts(source_of_config(config), FORMATS[config.format])["size"]
    return 0 if size < _SMALL[config.check_images] else min(8, len(os.sched_getaffinity(0)))
