"""What a pool's rows are like before anything has run: how many, how long; from the pool, or from its source."""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...models.cost import RowSize
from ...pool.checks import ImageError, RefusedError, check_record
from ...pool.encode import EncodeError, Encoder
from ...pool.examine import IngestConfig, check_given_root, read_records, settle
from ...pool.images import picture_size, resolve
from ...pool.reader import Pool
from ...pool.records import Record, image_value
from ...pool.share import ALL, inside, place_of, place_of_row, width
from ...pool.templates import TEMPLATES
from ...pool.vision import USUAL, Size
from ...store.errors import InputError
from ...store.files import exists, join
from ...store.ids import content_of
from ...store.usage import Usage

ROWS = 512
# English under a vocabulary of 32,000 words; what no tokenizer has counted is an estimate, and the plan says so
CHARS_PER_TOKEN = 3.6


@dataclass(frozen=True)
class Sample:
    """`rows` in all, and some of their records, evenly spaced; `origin` is "the pool" or "its source".

    `usage`: of the sampled rows of a source, those that ingest would take, pictures looked for but not opened; of a pool,
    what its ingest refused. `image_root`: where their pictures lie.
    """

    rows: int
    records: list[Record]
    origin: str
    usage: Usage = field(default_factory=lambda: Usage(0, {}, ""))
    image_root: str | None = None


@dataclass(frozen=True)
class Measured:
    """A stage's mean row and longest row (tokens), and how that is known."""

    row: RowSize
    longest: int
    how: str


def look(config: IngestConfig, folder: str) -> Sample:
    """Return a pool's rows and a sample of them: of the ingested pool, else by streaming through its source.

    Raises:
        InputError: the source cannot be read, its image root is not there, or no row of the sample is usable.
    """
    if exists(join(folder, "pool.json")):
        return look_at_pool(folder)
    check_given_root(config)
    config = settle(config)
    kept: list[tuple[int, Any]] = []
    rows, stride = 0, 1
    for raw in read_records(config):
        if rows % stride == 0:
            kept.append((rows, raw))
        if len(kept) == 2 * ROWS:  # how many there are is only known at the end
            kept, stride = kept[::2], 2 * stride
        rows += 1
    looked = [r for row, raw in kept if (r := record_of(row, raw, config)) is not None]
    # all of a small source is looked at
    rows = len(looked) if stride == 1 else round(rows * width(config.share))
    records = [r for r in looked if isinstance(r, Record)]
    refused = Counter(r for r in looked if isinstance(r, str))
    if rows and not records:
        reasons = ", ".join(f"{reason} {n}" for reason, n in refused.most_common())
        raise InputError(
            f"{config.source}: none of {len(kept)} sampled rows is usable ({reasons}). See `vinnow doctor`."
        )
    usage = Usage(len(records), dict(refused), "`vinnow doctor`")
    return Sample(rows, records, "its source", usage, config.image_root)


def look_at_pool(folder: str) -> Sample:
    """Return a pool's rows and a sample of them. Raises: as `Pool`."""
    pool = Pool(folder)
    usage = Usage(pool.rows, pool.facts.get("reasons", {}), join(folder, "refused.parquet"))
    positions = np.unique(np.linspace(0, pool.rows - 1, min(pool.rows, ROWS)).round().astype(int))
    return Sample(pool.rows, pool.take(pool.ids()[positions]), "the pool", usage, pool.image_root)


def encode_sizes(sample: Sample, encoder: Encoder) -> Measured:
    """Measure rows by encoding the sample.

    Raises:
        InputError: no sampled row can be encoded.
    """
    sizes, refused, shown, unseen = [], Counter[str](), 0, 0
    for record in sample.records:
        # how many tokens a picture becomes may depend on its size
        pixels = None if encoder.reader.fixed is not None else [_pixels(sample, image) for image in record.images]
        try:
            encoded = encoder.encode(record, pixels and [size or USUAL for size in pixels])
        except EncodeError as error:  # refused, when the time comes
            refused[error.reason] += 1
            continue
        if (encoded.labels == -100).all():
            refused["no_trained_token"] += 1
        shown += int((encoded.input_ids == encoder.image_id).sum())
        unseen += (pixels or []).count(None)
        sizes.append((len(encoded.input_ids), int((encoded.labels != -100).sum()), len(record.images)))
    lost = f"; refused would be {', '.join(f'{r} {n}' for r, n in refused.most_common())}" if refused else ""
    lost += f"; {unseen} pictures that are not there taken as {USUAL[0]} × {USUAL[1]}" if unseen else ""
    measured = _measured(sizes, f"{len(sizes)} rows of {sample.origin}, encoded{lost}")
    if encoder.reader.fixed is not None:
        return measured
    return replace(measured, row=replace(measured.row, shown=shown / len(sizes)))


def _pixels(sample: Sample, image: str) -> Size | None:
    """Return a picture's width and height; None where it cannot be looked at."""
    try:
        return picture_size(sample.image_root, image)
    except ImageError:
        return None


def estimate_sizes(sample: Sample, template: str, max_len: int, image_tokens: int) -> Measured:
    """Estimate rows from the sample's characters, where there is no tokenizer yet.

    Raises:
        InputError: the template fits no sampled row, or is one that a model's folder would bring.
    """
    if template not in TEMPLATES:
        raise InputError(
            f"template {template!r} is a model folder's chat template, and this run makes its model itself: name another."
        )
    sizes = []
    for record in sample.records:
        try:
            segments = TEMPLATES[template].segments(record.conversations, bool(record.images))
        except InputError:
            continue
        # special tokens: one at the beginning, and those of the template, as behind each answer
        marks = 1 + sum(s.kind in ("eos", "token") for s in segments)
        spoken = [(len(s.text) / CHARS_PER_TOKEN if s.kind == "text" else 0.0, s) for s in segments]
        trained = sum(tokens + (s.kind != "text") for tokens, s in spoken if s.trained)
        text = sum(tokens for tokens, _ in spoken)
        tokens = min(max_len, round(marks + text + image_tokens * len(record.images)))
        sizes.append((tokens, min(tokens, round(trained)), len(record.images)))
    how = f"estimated from the characters of {len(sizes)} rows of {sample.origin}, {CHARS_PER_TOKEN} per token"
    return _measured(sizes, how)


def _measured(sizes: list[tuple[int, int, int]], how: str) -> Measured:
    if not sizes:
        raise InputError("no sampled row fits template and max_len; see `vinnow doctor`, or take another template.")
    tokens, labels, images = np.array(sizes, dtype=float).T
    row = RowSize(float(tokens.mean()), float((tokens**2).mean()), float(labels.mean()), float(images.mean()))
    return Measured(row, int(tokens.max()), how)


def record_of(row: int, raw: Any, config: IngestConfig) -> Record | str | None:
    """Return a raw record as ingest would take it, or the reason why it would not; None for one of another share."""
    share = config.share or ALL
    try:
        record = raw if isinstance(raw, Exception) else check_record(raw)
        if isinstance(record, Exception):
            raise record
        content = content_of(image_value(record.images), record.conversations, record.system)
        if not inside(share, place_of(record.images, content)):
            return None
        for image in record.images if config.check_images != "none" else ():
            resolve(config.image_root, image)
    except (RefusedError, ImageError) as error:
        return error.reason if inside(share, place_of_row(row)) else None
    return Record(0, record.source, record.task, record.images, record.conversations, record.extra)
