"""Scores and picks of a run: one View a pool, every selector, budget and seed; picks also as LLaVA's own JSON."""

from collections.abc import Callable, Sequence

import numpy as np

from ...pool.export import write_llava_json
from ...pool.reader import Pool
from ...select.diagnostics import without_feature
from ...select.needs import Needs
from ...select.run import scores_notes, select_by
from ...select.view import EXTRA, View
from ...store.arrays import Array
from ...store.errors import InputError
from ...store.features import FeatureSet, exists_any, is_store
from ...store.files import absolute, exists, join
from ...store.learning_rates import read_rates
from ...store.refusals import refused_ids, usage_of
from ...store.tables import PICKS, read_rows
from ...store.usage import MAX_REFUSED
from ..progress import console
from .choices import Choice, picked
from .config import RunConfig

# (label, budget as configured, seed) → PICKS file
Picks = dict[tuple[str, str, int], str]


def make_view(
    pool: str,
    features: str | None,
    targets: str | None,
    needs: Needs,
    weights: dict[int, float] | None = None,
    max_refused: float = MAX_REFUSED,
) -> View:
    """Return what a selector may read: the pool's columns, the features and the fields of source records that it declares.

    Rows that a needed feature stage refused are left out of the pool up front; they are listed in its REFUSED tables.

    Raises:
        InputError: a feature store is not there; those are all rows, or more than the share `max_refused`.
    """
    for option, root in (("features", features), ("targets", targets)):
        # a selector that reads none would not miss it, and one that does says better what it misses
        if root is not None and not (root and (exists(root) if needs.names else is_store(root))):
            raise InputError(f"--{option} {root!r}: no such feature store. `vinnow features --out` makes one.")
    reader = Pool(pool)
    ids = reader.ids()
    columns: dict[str, Array] = {n: reader.column(n) for n in ("source", "task", "n_chars")}
    columns["has_image"] = reader.has_image()
    columns |= {EXTRA + n: c for n, c in reader.extra(list(needs.fields)).items()}
    refused = np.empty(0, np.uint64)
    if features and needs.names:
        weights = weights or _learning_rates(features, needs.names)
        refused = refused_ids(features, needs.names)
        usage_of(features, needs.names, ids).check(f"select by {' and '.join(needs.names)}", max_refused)
    return View(
        ids,
        columns,
        features_root=features,
        targets_root=targets,
        needs=needs,
        checkpoint_weights=weights,
        refused=refused,
    )


def _learning_rates(features: str, names: list[str]) -> dict[int, float] | None:
    """Return the learning rates that `features` found beside the checkpoints; None where some are not known."""
    rates_by_step: dict[int, float] = {}
    for name in names:
        rates = read_rates(features, name)
        if not exists_any(features, name) or not set(FeatureSet(features, name).steps()) <= set(rates):
            return None
        rates_by_step |= rates
    return rates_by_step if any(rates_by_step.values()) else None


def traps(out: str, label: str, seed: int, view: View) -> list[str]:
    """Return what a method's scores say of themselves that a user should know before believing them.

    Rows without a gradient score 0 at every checkpoint; without learning rates all checkpoints weigh the same.
    """
    notes = scores_notes(out, label, seed)
    lines = [line] if (line := without_feature(notes, len(view.ids))) else []
    weights = notes.get("checkpoint_weights", {})
    if len(weights) > 1 and view.checkpoint_weights is None and len(set(weights.values())) == 1:
        lines.append(
            f"{len(weights)} checkpoints weigh the same: no training's report lies beside them, to take learning rates "
            "from. LESS weighs by those: give --set checkpoint_weights.STEP=RATE."
        )
    return lines


def told(pool: str, features: str | None, view: View) -> list[str]:
    """Return what became of the rows that a selector could have chosen from and aimed at, as lines for the terminal.

    Nothing for a selector that reads no features.
    """
    needs = view.needs
    if not features or not needs.names:
        return []
    lines = [usage_of(features, needs.names, Pool(pool).ids()).line()]
    if needs.targets:
        by_task = {task: usage for kind in needs.features for task, usage in view.target_usage(kind).items()}
        lines += [f"target task {task!r}: {usage.line()}" for task, usage in by_task.items() if usage.refused]
    return lines


def select_all(
    config: RunConfig,
    out: str,
    weights: dict[int, float] | None,
    choices: Sequence[Choice] | None = None,
    note: Callable[[Picks], None] | None = None,
) -> Picks:
    """Pick for these choices (without them, for every selector × budget × seed) and return the PICKS files.

    `note` is told of those of a selector and seed as soon as they are there.
    """
    picks: Picks = {}
    choices = picked(config) if choices is None else choices
    pool = join(out, "pool")
    # each feature stage has held its rows to its own limit
    limits = {f.name: f.max_refused for f in config.features}
    features, targets = join(out, "features"), join(out, "targets")
    for section in config.selectors:
        seeds = list(dict.fromkeys(c.seed for c in choices if c.selector == section.label))
        if not seeds:
            continue
        selector = section.method()
        needs = selector.needs.called(section.reads)
        view = make_view(
            pool,
            features if any(exists_any(features, n) for n in needs.names) else None,
            targets if needs.targets and exists(targets) else None,
            needs,
            weights,
            min(1.0, sum(limits.get(n, 0.0) for n in needs.names)),
        )
        for line in told(pool, view.features_root, view):
            console.print(f"{section.label}: {line}", markup=False, soft_wrap=True)
        for seed in seeds:
            budgets = [c.budget for c in choices if (c.selector, c.seed) == (section.label, seed)]
            paths = select_by(view, selector, section.label, budgets, seed, out)
            for line in traps(out, section.label, seed, view) if seed == seeds[0] else ():
                console.print(f"{section.label}: {line}", markup=False, soft_wrap=True)
            for path in paths.values():
                export_picks(pool, path)
            files = {(section.label, budget, seed): absolute(path) for budget, path in paths.items()}
            if note is not None:
                note(files)
            picks |= files
    return picks


def export_picks(pool: str, picks: str) -> str:
    """Write the records of a PICKS file beside it, in LLaVA's own format, best first; returns the JSON's path."""
    path = picks.removesuffix(".parquet") + ".json"
    write_llava_json(Pool(pool), ranked_ids(picks), path)
    return path


def ranked_ids(picks: str) -> Array:
    """Return the ids of a PICKS file, best first."""
    return read_rows(picks, PICKS).sort_by("rank")["sample_id"].to_numpy()
