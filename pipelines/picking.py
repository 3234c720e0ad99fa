"""Scores and picks of a run: one View a pool, every selector, budget and seed; picks also as LLaVA's own JSON."""

import os
from typing import Any

import numpy as np

from ..pool.export import write_llava_json
from ..pool.reader import Pool
from ..select import registry
from ..select.run import select
from ..select.view import EXTRA, View, extra_fields, feature_kinds
from ..store.features import exists_any
from ..store.files import exists, join
from ..store.refusals import refused_ids
from ..store.tables import PICKS, read_rows
from .config import RunConfig


def make_view(
    pool: str,
    features: str | None,
    targets: str | None,
    needs: tuple[str, ...],
    weights: dict[int, float] | None = None,
) -> View:
    """Return what a selector may read: the pool's columns, the features and the fields of source records that it declares.

    Rows that a needed feature stage refused are left out of the pool up front; they are listed in its REFUSED tables.
    """
    reader = Pool(pool)
    ids = reader.ids()
    columns: dict[str, np.ndarray[Any, Any]] = {n: reader.column(n) for n in ("source", "task", "n_chars")}
    columns["has_image"] = reader.has_image()
    columns |= {EXTRA + n: c for n, c in reader.extra(extra_fields(needs)).items()}
    kinds = feature_kinds(needs)
    refused = refused_ids(features, kinds) if features else np.empty(0, np.uint64)
    return View(
        ids,
        columns,
        features_root=features,
        targets_root=targets,
        needs=needs,
        checkpoint_weights=weights,
        refused=refused,
    )


def select_all(config: RunConfig, out: str, weights: dict[int, float] | None) -> dict[tuple[str, str, int], str]:
    """Pick for every selector × budget × seed and return the PICKS files."""
    made: dict[tuple[str, str, int], str] = {}
    pool = join(out, "pool")
    features, targets = join(out, "features"), join(out, "targets")
    for section in config.selectors:
        needs = registry.make(section.name, section.config).needs
        view = make_view(
            pool,
            features if any(exists_any(features, n) for n in feature_kinds(needs)) else None,
            targets if exists(targets) else None,
            needs,
            weights,
        )
        for seed in config.seeds:
            paths = select(view, section.name, section.config, config.budgets, seed, out)
            for budget, path in paths.items():
                made[section.name, str(budget), seed] = os.path.abspath(path)
                export_picks(pool, path)
    return made


def export_picks(pool: str, picks: str) -> str:
    """Write the records of a PICKS file beside it, in LLaVA's own format, best first; returns the JSON's path."""
    path = picks.removesuffix(".parquet") + ".json"
    write_llava_json(Pool(pool), ranked_ids(picks), path)
    return path


def ranked_ids(picks: str) -> np.ndarray[Any, Any]:
    """Return the ids of a PICKS file, best first."""
    return read_rows(picks, PICKS).sort_by("rank")["sample_id"].to_numpy()
