"""What a pool and each choice from it hold, by the fields that its records carry (ScienceQA's subject, topic, skill, …).

Axis: N rows.
"""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table as Shown

from ...pool.reader import Pool
from ...store.arrays import Array
from .data import Composition, ReportData
from .headline import Row
from .markup import Table

FIELDS = ("subject", "topic", "category", "skill", "grade")
IMAGE = "image"
# rows looked at before the fields of a whole pool are parsed; values listed in short, open, at all
LOOKED, FEW, OPEN, MOST = 256, 4, 40, 400


def compose(pool: Pool, choices: dict[str, Array]) -> list[Composition]:
    """Count rows by each of FIELDS that the records have, and by whether there is a picture; [] where they have none.

    `choices`: name → positions in `pool.ids()`.
    """
    texts = pool.column("extra")
    positions = np.unique(np.linspace(0, len(texts) - 1, min(LOOKED, len(texts))).astype(int))
    seen = {name for text in texts[positions] for name in json.loads(text)}
    names = [n for n in FIELDS if n in seen]
    if not names:
        return []
    columns: dict[str, Array] = {IMAGE: np.where(pool.has_image(), "with a picture", "text only")}
    columns |= pool.extra(names)
    return [
        Composition(n, _count(columns[n]), {name: _count(columns[n][rows]) for name, rows in choices.items()})
        for n in (*names, IMAGE)
    ]


def short_rows(compositions: list[Composition]) -> list[tuple[str, list[int]]]:
    """Return (what, [pool, each choice]): rows by value where a field has few, else how many of its values there are."""
    lines: list[tuple[str, list[int]]] = []
    for one in compositions:
        sides = [one.pool, *one.choices.values()]
        if len(one.pool) <= FEW:
            lines += [(f"{one.field}: {value}", [s.get(value, 0) for s in sides]) for value in one.pool]
        else:
            lines.append((f"values of {one.field}", [len(s) for s in sides]))
    return lines


def composition_table(data: ReportData) -> Shown | None:
    """Return `short_rows` for the terminal; None where the records have no such field."""
    if not data.composition:
        return None
    table = Shown(title="What was chosen (rows)", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for name in ("pool", *data.composition[0].choices):
        table.add_column(escape(name), justify="right")
    for what, counts in short_rows(data.composition):
        table.add_row(escape(what), *(f"{n:,}" for n in counts))
    return table


def composition_section(data: ReportData, rows: list[Row]) -> dict[str, Any] | None:
    """Rows by field, in the pool and in each choice; long lists folded."""
    if not data.composition:
        return None
    head = ["pool", *data.composition[0].choices]
    numeric = set(range(1, len(head) + 1))
    short = [[what, *(f"{n:,}" for n in counts)] for what, counts in short_rows(data.composition)]
    tables = [(Table("In short", ["", *head], short, numeric), "")]
    for one in data.composition:
        sides = [one.pool, *one.choices.values()]
        values = list(one.pool)[:MOST]
        lines = [[value, *(f"{s.get(value, 0):,}" for s in sides)] for value in values]
        title = f"Rows by {one.field}" + (
            f": the {MOST} commonest of {len(one.pool):,}" if len(one.pool) > MOST else ""
        )
        folded = f"{title} ({len(values)} values)" if len(values) > OPEN else ""
        tables.append((Table(title, [one.field, *head], lines, numeric), folded))
    return {"tables": tables}


def _count(values: Iterable[Any]) -> dict[str, int]:
    """Count values, the commonest first."""
    counted = Counter("–" if v is None else str(v) for v in values)
    return dict(sorted(counted.items(), key=lambda pair: (-pair[1], pair[0])))
