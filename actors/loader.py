"""A part of the pool → token ids and decoded pictures, as one Arrow message (no GPU, no model)."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ..models.encoding import make_encoder
from ..models.load import load_processor
from ..pool.decode import Decoder, Refusal
from ..pool.encode import IGNORE, Encoded
from ..pool.reader import Pool
from ..pool.records import Record
from ..pool.refusals import RefusedError
from ..pool.vision import Media
from ..store.arrays import Array
from ..store.errors import InputError
from .config import FeatureSpec
from .kind import kind_of

_SCHEMA = pa.schema(
    [
        ("sample_id", pa.uint64()),
        ("task", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("cut", pa.int32()),
    ]
)


# in front of the names of media, each a column
_MEDIA = "media:"


@dataclass
class LoadedPart:
    """Rows of one part, encoded, with their pictures."""

    encoded: list[Encoded]
    tasks: list[str]
    refused: list[Refusal] = field(default_factory=list)


class PartLoader:
    """Plain class: `__init__` loads the processor, `load(name)` reads, tokenises and decodes one part."""

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        self.pool = Pool(spec.pool)
        config = spec.config
        self.needs_labels = kind_of(config).needs_labels
        processor = load_processor(spec.checkpoints[0].path)
        self.encoder = make_encoder(processor, config.template, config.max_len, config.image_mode, config.pictures)
        self.decoder = Decoder(self.encoder, config.image_root or self.pool.image_root, spec.threads)
        self.parts = {p.name: p for p in self.pool.shards(config.rows_per_part)}

    def load(self, name: str) -> LoadedPart:
        """Load one part; rows that cannot be fed are refused with a reason, the rest goes on."""
        records = self.pool.read(self.parts[name])
        part = LoadedPart([], [])
        for record, row in zip(records, self.decoder.rows(records, self._encoded), strict=True):
            if isinstance(row, Refusal):
                part.refused.append(row)
            else:
                part.encoded.append(row)
                part.tasks.append(record.task)
        return part

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Add the loaded part, packed, as `payload`."""
        return part | {"payload": pack(self.load(part["part"]))}

    def _encoded(self, record: Record) -> Encoded:
        encoded = self.decoder.encode(record)
        if self.needs_labels and (encoded.labels == IGNORE).all():
            raise RefusedError("no_trained_token", "no answer token carries loss: the gradient is undefined")
        return encoded


def pack(part: LoadedPart) -> bytes:
    """Put a loaded part into Arrow IPC bytes (its own format, not pickle; a part is some 90 MB at 336² × 256 rows).

    Raises:
        InputError: its pictures differ in more than the length of their leading axes.
    """
    rows = [row.media for row in part.encoded]
    columns = [
        [e.sample_id for e in part.encoded],
        part.tasks,
        [e.input_ids for e in part.encoded],
        [e.labels for e in part.encoded],
        [e.cut for e in part.encoded],
    ]
    forms: dict[str, Any] = {}
    for one in (one for row in rows for one in row):
        for name, array in one.items():
            form = {"type": array.dtype.str, "shape": list(array.shape[1:])}
            if forms.setdefault(name, form) != form:
                both = [tuple(f["shape"]) for f in (forms[name], form)]
                raise InputError(f"pictures of one part have different shapes after preprocessing: {sorted(both)}.")
    fields = [pa.field(f"{_MEDIA}{name}", pa.list_(pa.large_binary())) for name in forms]
    columns += [[[one[name].tobytes() for one in row] for row in rows] for name in forms]
    schema = pa.schema([*_SCHEMA, *fields], {"forms": json.dumps(forms), "refused": json.dumps(part.refused)})
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def unpack(payload: bytes) -> LoadedPart:
    """The inverse of `pack`."""
    table = pa.ipc.open_stream(payload).read_all()
    meta = table.schema.metadata
    forms, rows = json.loads(meta[b"forms"]), table.to_pydict()

    def media(row: int) -> tuple[Media, ...]:
        by_name = {name: rows[f"{_MEDIA}{name}"][row] for name in forms}
        pictures = len(next(iter(by_name.values()), ()))
        return tuple({n: _array(data[i], forms[n]) for n, data in by_name.items()} for i in range(pictures))

    columns = zip(rows["sample_id"], rows["input_ids"], rows["labels"], rows["cut"], strict=True)
    encoded = [
        Encoded(i, np.array(ids, np.int64), np.array(labels, np.int64), (), cut, media(row))
        for row, (i, ids, labels, cut) in enumerate(columns)
    ]
    return LoadedPart(encoded, rows["task"], [Refusal(*r) for r in json.loads(meta[b"refused"])])


def _array(data: bytes, form: dict[str, Any]) -> Array:
    return np.frombuffer(data, np.dtype(form["type"])).reshape(-1, *form["shape"])
