"""A part of the pool → token ids and decoded pictures, as one Arrow message (no GPU, no model)."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ..models.load import load_processor
from ..pool.encode import Encoded, Encoder
from ..pool.reader import Pool
from ..store.errors import InputError
from .config import FeatureSpec
from .kind import kind_of

_SCHEMA = pa.schema(
    [
        ("sample_id", pa.uint64()),
        ("task", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("pixels", pa.list_(pa.large_binary())),
        ("cut", pa.int32()),
    ]
)


@dataclass
class LoadedPart:
    """Rows of one part, encoded: `pixels` are each row's pictures, uint8 [3, H, W].

    `refused`: (sample_id, source, reason, detail).
    """

    encoded: list[Encoded]
    tasks: list[str]
    pixels: list[list[np.ndarray[Any, Any]]]
    refused: list[tuple[int, str, str, str]] = field(default_factory=list)


class PartLoader:
    """Plain class: `__init__` loads the processor, `load(part_index)` reads, tokenises and decodes one part."""

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        self.pool = Pool(spec.pool)
        config = spec.config
        self.needs_labels = kind_of(config).needs_labels
        self.root = config.image_root or self.pool.image_root
        processor = load_processor(spec.checkpoints[0].path)
        self.encoder = Encoder(processor, config.template, config.max_len, config.image_mode, config.pictures)
        self.parts = {p.name: p for p in self.pool.shards(config.rows_per_part)}

    def load(self, name: str) -> LoadedPart:
        """Load one part; rows that cannot be fed are refused with a reason, the rest goes on."""
        records = self.pool.read(self.parts[name])
        with ThreadPoolExecutor(max(1, self.spec.threads)) as threads:  # PIL decodes outside the GIL
            done = list(threads.map(self._one, records))
        part = LoadedPart([], [], [])
        for record, (encoded, pixels, refusal) in zip(records, done, strict=True):
            if encoded is None:
                part.refused.append((record.sample_id, record.source, *refusal))
            else:
                part.encoded.append(encoded)
                part.tasks.append(record.task)
                part.pixels.append(pixels)
        return part

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Ray Data's form: adds the column `payload` to rows of (part, todo)."""
        return batch | {"payload": np.array([pack(self.load(str(n))) for n in batch["part"]], dtype=object)}

    def _one(self, record: Any) -> tuple[Encoded | None, list[np.ndarray[Any, Any]], tuple[str, str]]:
        try:
            encoded = self.encoder.encode(record)
            if self.needs_labels and (encoded.labels == -100).all():
                return (
                    None,
                    [],
                    ("no_trained_token", "no answer token carries loss: the gradient is undefined"),
                )
            return encoded, [self.encoder.load(self.root, i, record.seen(i)) for i in encoded.images], ("", "")
        except InputError as error:
            return None, [], (getattr(error, "reason", "not_encodable"), str(error))


def pack(part: LoadedPart) -> bytes:
    """Put a loaded part into Arrow IPC bytes (its own format, not pickle; a part is some 90 MB at 336² × 256 rows)."""
    shapes = {p.shape for row in part.pixels for p in row}
    if len(shapes) > 1:
        raise InputError(f"pictures of one part have different shapes after preprocessing: {sorted(shapes)}.")
    shape = next(iter(shapes), (0, 0, 0))
    columns = [
        [e.sample_id for e in part.encoded],
        part.tasks,
        [e.input_ids for e in part.encoded],
        [e.labels for e in part.encoded],
        [[p.tobytes() for p in row] for row in part.pixels],
        [e.cut for e in part.encoded],
    ]
    meta = {"shape": ",".join(map(str, shape)), "refused": json.dumps(part.refused)}
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _SCHEMA.with_metadata(meta)) as writer:
        writer.write_table(table.replace_schema_metadata(meta))
    return sink.getvalue().to_pybytes()


def unpack(payload: bytes) -> LoadedPart:
    """The inverse of `pack`."""
    table = pa.ipc.open_stream(payload).read_all()
    meta = table.schema.metadata
    shape = tuple(int(s) for s in meta[b"shape"].decode().split(","))
    rows = table.to_pydict()
    encoded = [
        Encoded(i, np.array(ids, np.int64), np.array(labels, np.int64), (), cut)
        for i, ids, labels, cut in zip(rows["sample_id"], rows["input_ids"], rows["labels"], rows["cut"], strict=True)
    ]
    pixels = [[np.frombuffer(p, np.uint8).reshape(shape) for p in row] for row in rows["pixels"]]
    return LoadedPart(encoded, rows["task"], pixels, [tuple(r) for r in json.loads(meta[b"refused"])])
