"""Records → a table of what can be said of each alone; ids, repeats and pictures need the rows around it.

Every record is checked by `checks.check_record`; then whole columns are built at once, which is what makes 665K
records cost seconds. A draft travels between processes as one Arrow stream, refusals in its footer.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..store.ids import content_of
from ..store.tables import POOL, TURN
from .blocks import Block, parse
from .checks import IMAGE, Checked, RefusedError, check_record, source_of
from .odd import Odd
from .records import image_value

# `row` counts from the block's first record; `content` is what ids are made of
DRAFT = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("content", pa.binary(16)),
        *(POOL.field(n) for n in ("source", "task", "images", "conversations", "n_chars", "extra", "n_tokens")),
    ]
)
_FACTS = b"vinnow.draft"
Counter = Callable[[list[str]], list[int]]


@dataclass(frozen=True)
class Refusal:
    """A row that is in no pool, and why; `reason` is one of `checks.REASONS`; `image`: the picture that is to blame."""

    row: int
    source: str
    reason: str
    detail: str
    sample_id: int | None = None
    image: str | None = None


@dataclass(frozen=True)
class Draft:
    """A block of `rows` records: DRAFT `table`, refusals by row, and how the block ended (`blocks.Parsed`).

    `odd`: row → (what, which) of sound records (`odd.ODD`); rows of another share may be among them.
    """

    rows: int
    table: pa.Table
    refused: list[Refusal]
    ended: str = "more"
    offset: int = 0
    odd: dict[int, Odd] = field(default_factory=dict)


def draft_block(block: Block, count: Counter | None = None, root: str | None = None) -> Draft:
    """Parse a block and draft its records; `count` gives the tokens of texts."""
    parsed = parse(block)
    drafted = draft(parsed.values, count, root)
    return Draft(drafted.rows, drafted.table, drafted.refused, parsed.ended, parsed.stuck_byte, drafted.odd)


def draft(values: Sequence[Any], count: Counter | None = None, root: str | None = None) -> Draft:
    """Check records and build the columns of those that are sound; absolute image paths under `root` become relative."""
    rows, kept, refused = [], [], []
    for row, raw in enumerate(values):
        try:
            kept.append(check_record(raw, root))
            rows.append(row)
        except RefusedError as error:
            refused.append(refusal(row, source_of(raw), error.reason, str(error)))
    odd = {row: checked.odd for row, checked in zip(rows, kept, strict=True) if checked.odd}
    return Draft(len(values), _columns(rows, kept, count), refused, odd=odd)


def refusal(row: int, source: str, reason: str, detail: str, sample_id: int | None = None) -> Refusal:
    """Make a refusal whose texts fit UTF-8 and a line."""
    return Refusal(row, source, reason, detail[:500].encode("utf-8", "backslashreplace").decode(), sample_id)


def _columns(rows: list[int], kept: list[Checked], count: Counter | None) -> pa.Table:
    texts = [t["value"] for c in kept for t in c.conversations]
    ends = np.cumsum([0, *(len(c.conversations) for c in kept)])
    values = pa.array(texts, pa.string())
    # human and gpt take turns, as `check_record` saw
    roles = pa.array(["human", "gpt"]).take(pa.array(np.arange(len(texts)) % 2))
    turns = pa.StructArray.from_arrays([roles, values], fields=list(TURN))
    sizes = np.concatenate([[0], np.cumsum(pc.utf8_length(values).to_numpy(zero_copy_only=False))])
    n_tokens = None
    if count is not None:
        spoken = [_spoken(t["value"], len(c.images)) for c in kept for t in c.conversations]
        tokens = np.concatenate([[0], np.cumsum(count(spoken))])
        n_tokens = np.diff(tokens[ends]).astype(np.int32) + np.array(count([c.system for c in kept]), np.int32)
    columns = {
        "row": pa.array(rows, pa.int64()),
        "content": pa.array(
            [content_of(image_value(c.images), c.conversations, c.system) for c in kept], pa.binary(16)
        ),
        "source": pa.array([c.source for c in kept], pa.string()),
        "task": pa.array([c.task for c in kept], pa.string()),
        "images": pa.array([c.images for c in kept], pa.list_(pa.string())),
        "conversations": pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), turns),
        "n_chars": pa.array(np.diff(sizes[ends]).astype(np.int64) + [len(c.system) for c in kept]),
        # ASCII escapes hold even a lone surrogate, which Parquet's UTF-8 cannot
        "extra": pa.array([json.dumps(c.extra) for c in kept], pa.string()),
        "n_tokens": pa.nulls(len(kept), pa.int32()) if n_tokens is None else pa.array(n_tokens),
    }
    return pa.table(columns).cast(DRAFT)


def _spoken(text: str, pictures: int) -> str:
    """Drop the pictures' marks from a turn: how many tokens they become is the model's business."""
    if pictures > 1:
        return text.replace(f"{IMAGE}\n", "").replace(IMAGE, "")
    return text.removeprefix(IMAGE).removeprefix("\n") if text.startswith(IMAGE) else text


def to_bytes(drafted: Draft) -> pa.Buffer:
    """Return a draft as an Arrow stream."""
    refused = [asdict(r) for r in drafted.refused]
    facts = {"rows": drafted.rows, "refused": refused, "ended": drafted.ended, "offset": drafted.offset}
    facts["odd"] = list(drafted.odd.items())  # an object's keys would become texts
    table = drafted.table.replace_schema_metadata({_FACTS: json.dumps(facts)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def from_bytes(data: bytes) -> Draft:
    """Return the draft of an Arrow stream; its table lies in `data`, nothing is copied."""
    table = pa.ipc.open_stream(pa.BufferReader(data)).read_all()
    facts = json.loads(table.schema.metadata[_FACTS])
    refused = [Refusal(**r) for r in facts["refused"]]
    odd = {row: tuple((what, which) for what, which in some) for row, some in facts["odd"]}
    return Draft(facts["rows"], table.replace_schema_metadata(None), refused, facts["ended"], facts["offset"], odd)
