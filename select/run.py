"""Score once, pick for every budget, check every law of PICKS, write the files."""

import json
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa

from .. import __version__
from ..store.claim import claim
from ..store.errors import DamagedError, InputError
from ..store.files import digest, exists, join, list_files, reading_parquet, write_parquet
from ..store.names import is_name, path_part
from ..store.reading import shown
from ..store.tables import PICKS, SCORES, check_unique, conform, write_rows
from . import registry
from .pickers import check_budget
from .rows import NOTES, notes_in, read_notes
from .rule import Picker, Ruled
from .seconds import Took, timed, took
from .view import View

FOOTER = b"vinnow.scores"
_NUMBER = re.compile(r"[+-]?\d{0,18}(\.\d{0,18})?(/\d{1,18})?")


def budget_rows(budget: int | str, rows: int) -> int:
    """Return a budget in rows: a count, or a share of the pool ("10%"), rounded down as LESS and XMAS round.

    The share is taken as it is written: 29% of 100 rows is 29 of them, which 0.29 · 100 in binary numbers is not.

    Raises:
        InputError: no number, less than one row, or more than the pool.
    """
    text = str(budget).strip()
    try:
        share = _number(text[:-1]) / 100 if text.endswith("%") else None
        wanted = int(text) if share is None else int(rows * share)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"a budget is a number of rows or a share like 10%, not {shown(budget)}.") from None
    if share is not None and share > 1:
        raise InputError(f"a budget of {budget} is more than the whole pool.")
    if not is_name(budget_label(text)):  # 1/3% is a fraction too, and files are called after a budget
        raise InputError(f"a budget is a number of rows or a share like 10%, in plain digits, not {budget!r}.")
    check_budget(wanted, rows)
    return wanted


def refuse_repeats(budgets: Sequence[int | str]) -> None:
    """Refuse budgets that are one, written twice: 10% and 10.0%.

    Raises:
        InputError: names them.
    """
    seen: dict[tuple[Fraction, bool], int | str] = {}
    for budget in budgets:
        text = str(budget).strip()
        try:
            value = _number(text.rstrip("%")), text.endswith("%")
        except (ValueError, ZeroDivisionError):
            continue  # no budget at all: `budget_rows` says so
        if value in seen:
            raise InputError(f"budget {budget} is given twice (as {seen[value]}).")
        seen[value] = budget


def _number(text: str) -> Fraction:
    if not _NUMBER.fullmatch(text.strip()):  # 1e999999999 would be worked out
        raise ValueError(text)
    return Fraction(text.strip())


def budget_label(budget: int | str) -> str:
    """Return a budget as part of a file name: 10% → 10pct."""
    return str(budget).replace("%", "pct").replace(" ", "")


def picks_file(label: str, budget: int | str, seed: int) -> str:
    """Return the name of a PICKS file: LABEL-BUDGET[-sSEED].parquet."""
    return f"{label}-{budget_label(budget)}{_suffix(seed)}.parquet"


def select(
    view: View, name: str, config: dict[str, Any], budgets: Sequence[int | str], seed: int, out: str
) -> dict[str, str]:
    """Write `out/picks/NAME-BUDGET[-sSEED].parquet` for each budget; return the paths by budget.

    Scores lie in `out/scores/`, and are used again as long as rows, features, targets, config, seed and the
    method's code are the same. A share counts the rows that the view holds (refused ones are not among them).

    Raises:
        InputError: unknown selector or field, a budget that does not fit, features missing or made otherwise.
    """
    return select_by(view, registry.make(name, config), name, budgets, seed, out)


def select_by(
    view: View, selector: Picker, label: str, budgets: Sequence[int | str], seed: int, out: str
) -> dict[str, str]:
    """The same with a selector that is made; files and the column `selector` go by its label. Raises: as `select`."""
    path_part(label, "label")
    if not -(1 << 63) <= seed < 1 << 63:
        raise InputError(f"seed {shown(seed)} does not fit into 64 bits.")
    selector = selector.on(view) if isinstance(selector, Ruled) else selector
    rows = {str(b): budget_rows(b, len(view.ids)) for b in budgets}
    refuse_repeats(budgets)
    with claim(join(out, "picks"), "select"):
        return _picked(view, selector, label, rows, seed, out)


def _picked(view: View, selector: Picker, label: str, rows: dict[str, int], seed: int, out: str) -> dict[str, str]:
    name = selector.name
    scores = load_scores(view, selector, seed, out, label)
    paths = {}
    for budget, wanted in rows.items():
        with timed(out, "picked", picks_file(label, budget, seed)):
            picks = conform(selector.pick(scores, wanted, seed), PICKS, f"{name} picks")
        # what the scores say of themselves (rows without a gradient) goes where the picks go
        picks = picks.replace_schema_metadata({NOTES: json.dumps(read_notes(scores))})
        _check_picks(picks, name, wanted, seed, view)
        called = pa.repeat(label, picks.num_rows)
        picks = picks.set_column(picks.column_names.index("selector"), PICKS.field("selector"), called)
        paths[budget] = join(out, "picks", picks_file(label, budget, seed))
        write_rows(paths[budget], picks, PICKS)
    return paths


def load_scores(view: View, selector: Picker, seed: int, out: str, label: str = "") -> pa.Table:
    """Return a selector's SCORES: those on disk if made from just these inputs, else new ones, written.

    `out/scores/LABEL[-sSEED].parquet`, LABEL being the method's name if none is given; a method whose scores do not depend
    on the seed has one file for all. What another label's scores were made from in the same way is taken, not scored again.
    """
    path = join(out, "scores", f"{label or selector.name}{_suffix(seed) if selector.seeded else ''}.parquet")
    facts = {
        "view": view.digest_facts(),
        "config": selector.config.model_dump(mode="json"),
        "seed": seed if selector.seeded else None,
        "code": [__version__, registry.source_digest(selector)],
    }
    if isinstance(selector, Ruled) and selector.rule.each_target:
        facts["targets"] = "each"
    key = digest(json.dumps(facts, sort_keys=True)).encode()
    kept = _read_if(path, key) if exists(path) else None
    if kept is not None:
        return kept
    same = _alike(join(out, "scores"), key)
    if same is not None:
        write_parquet(path, same)
        return same
    with timed(out, "scored", key.decode()):
        scores = conform(selector.score(view, seed), SCORES, f"{selector.name} scores")
    _check_scores(scores, selector.name, view)
    scores = scores.replace_schema_metadata((scores.schema.metadata or {}) | {FOOTER: key})
    write_parquet(path, scores)
    return scores


def scores_notes(out: str, label: str, seed: int) -> dict[str, Any]:
    """Return the notes that a method left with the scores that its picks were made of; none where it has no scores."""
    for suffix in dict.fromkeys((_suffix(seed), "")):
        path = join(out, "scores", f"{label}{suffix}.parquet")
        if exists(path):
            with reading_parquet(path, "Delete it: it is scored anew.") as file:
                return notes_in(file.schema_arrow.metadata or {})
    return {}


def scoring_took(out: str, label: str, seed: int) -> Took | None:
    """Return what a label's scores took to make, whoever made them; None where that is not known."""
    for suffix in dict.fromkeys((_suffix(seed), "")):
        path = join(out, "scores", f"{label}{suffix}.parquet")
        if exists(path):
            with reading_parquet(path, "Delete it: it is scored anew.") as file:
                key = (file.schema_arrow.metadata or {}).get(FOOTER, b"")
            return took(out, "scored", key.decode())
    return None


def _alike(folder: str, key: bytes) -> pa.Table | None:
    """Return SCORES of another label under this key, with their footer; None where there are none."""
    for path in list_files(folder, ".parquet"):
        scores = _read_if(path, key)
        if scores is not None:
            return scores
    return None


def _read_if(path: str, key: bytes) -> pa.Table | None:
    """Read SCORES if they were written under this key and are as they were written; else only their footer is read."""
    try:
        with reading_parquet(path, "") as file:
            if (file.schema_arrow.metadata or {}).get(FOOTER) != key:
                return None
            return conform(file.read(), SCORES, path)
    except DamagedError:  # scored anew
        return None


def _suffix(seed: int) -> str:
    return "" if seed == 0 else f"-s{seed}"


def _check_scores(scores: pa.Table, name: str, view: View) -> None:
    bad = int((~np.isfinite(scores["score"].to_numpy())).sum())
    if bad:
        raise InputError(f"selector {name!r} gave {bad} of {scores.num_rows} rows a score that is not finite.")
    if not np.isin(scores["sample_id"].to_numpy(), view.ids).all():
        raise InputError(f"selector {name!r} scored rows that are not in the pool.")


def _check_picks(picks: pa.Table, name: str, budget: int, seed: int, view: View) -> None:
    """Hold a method to the laws of PICKS."""
    check_unique(picks, f"{name} picks")
    if picks.num_rows != budget:
        raise InputError(f"selector {name!r} returned {picks.num_rows} rows for a budget of {budget}.")
    if not np.isin(picks["sample_id"].to_numpy(), view.ids).all():
        raise InputError(f"selector {name!r} picked rows that are not in the pool.")
    if not np.array_equal(picks["rank"].to_numpy(), np.arange(budget)):
        raise InputError(f"selector {name!r}: ranks must count from 0 to {budget - 1}, in order.")
    for column, value in (("selector", name), ("budget", budget), ("seed", seed)):
        if picks[column].unique().to_pylist() != [value]:
            raise InputError(f"selector {name!r}: column {column!r} must hold {value!r} in every row.")
