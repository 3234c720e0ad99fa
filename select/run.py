"""Score once, pick for every budget, check every law of PICKS, write the files."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .. import __version__
from ..store.errors import InputError
from ..store.files import digest, exists, join, open_fs, write_parquet
from ..store.ids import ids_digest
from ..store.tables import PICKS, SCORES, check_unique, conform, write_rows
from . import registry
from .pickers import check_budget
from .view import View

FOOTER = b"vinnow.scores"


def budget_rows(budget: int | str, rows: int) -> int:
    """Return a budget in rows: a count, or a share of the pool ("10%"), rounded to the nearest row.

    Raises:
        InputError: no number, 0, or more than the pool.
    """
    text = str(budget).strip()
    try:
        wanted = round(rows * float(text[:-1]) / 100) if text.endswith("%") else int(text)
    except ValueError:
        raise InputError(f"a budget is a number of rows or a share like 10%, not {budget!r}.") from None
    check_budget(wanted, rows)
    return wanted


def label(budget: int | str) -> str:
    """Return a budget as part of a file name: 10% → 10pct."""
    return str(budget).replace("%", "pct").replace(" ", "")


def select(
    view: View, name: str, config: dict[str, Any], budgets: Sequence[int | str], seed: int, out: str
) -> dict[str, str]:
    """Write `out/picks/NAME-BUDGET[-sSEED].parquet` for each budget; return the paths by budget.

    Scores lie in `out/scores/` and are used again as long as the features, config and seed are the same.

    Raises:
        InputError: unknown selector or field, a budget that does not fit, features missing or made otherwise.
    """
    selector = registry.make(name, config)
    rows = {str(b): budget_rows(b, len(view.ids)) for b in budgets}
    suffix = "" if seed == 0 else f"-s{seed}"
    scores = _scores(selector, view, config, seed, join(out, "scores", f"{name}{suffix}.parquet"))
    paths = {}
    for budget, wanted in rows.items():
        picks = conform(selector.pick(scores, wanted, seed), PICKS, f"{name} picks")
        _check(picks, wanted, view, name)
        paths[budget] = join(out, "picks", f"{name}-{label(budget)}{suffix}.parquet")
        write_rows(paths[budget], picks, PICKS)
    return paths


def _scores(selector: registry.Selector, view: View, config: dict[str, Any], seed: int, path: str) -> pa.Table:
    facts = {"features": view.digest_facts(), "config": config, "seed": seed, "rows": ids_digest(view.ids)}
    key = digest(json.dumps(facts, sort_keys=True, default=str), __version__).encode()
    if exists(path):
        fs, inner = open_fs(path)
        with fs.open_input_file(inner) as source:
            file = pq.ParquetFile(source)
            if (file.schema_arrow.metadata or {}).get(FOOTER) == key:
                return conform(file.read(), SCORES, path)
    scores = conform(selector.score(view, seed), SCORES, f"{selector.name} scores")
    write_parquet(path, scores.replace_schema_metadata({FOOTER: key}))
    return scores


def _check(picks: pa.Table, budget: int, view: View, name: str) -> None:
    check_unique(picks, f"{name} picks")
    if picks.num_rows != budget:
        raise InputError(f"selector {name!r} returned {picks.num_rows} rows for a budget of {budget}.")
    if not np.isin(picks["sample_id"].to_numpy(), view.ids).all():
        raise InputError(f"selector {name!r} picked rows that are not in the pool.")
