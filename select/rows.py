"""SCORES and PICKS as numpy columns, and the notes that a method leaves in its scores' footer.

Axes: N samples, T targets.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ..store.arrays import Array
from ..store.errors import InputError
from ..store.reading import parse_json
from ..store.tables import PICKS, SCORES, conform

NOTES = b"vinnow.notes"


@dataclass(frozen=True)
class Labels:
    """A name for each row: `number_N` [N] says which of `names` it is."""

    number_N: Array
    names: list[str]


def scores_table(
    ids: Array,
    target: str | Labels,
    group: Array,
    score: Array,
    notes: dict[str, Any] | None = None,
) -> pa.Table:
    """Return SCORES. `target` is one name for all rows, or each row's own.

    `notes` are counts worth telling (rows without a gradient, empty clusters); they travel in the footer.
    """
    labels = Labels(np.zeros(len(ids)), [target]) if isinstance(target, str) else target
    # through a dictionary: N Python strings would cost more than all else at 665K rows × 57 targets
    numbers, names = pa.array(labels.number_N.astype(np.int32)), pa.array(labels.names, pa.string())
    names_N = pa.DictionaryArray.from_arrays(numbers, names)
    columns = {
        "sample_id": pa.array(ids.astype(np.uint64)),
        "target": names_N,
        "group": pa.array(group.astype(np.int64)),
        "score": pa.array(score.astype(np.float64)),
    }
    table = pa.table(columns).replace_schema_metadata({NOTES: json.dumps(notes or {})})
    return conform(table, SCORES, "scores")


def matrix_scores_table(ids: Array, targets: list[str], scores_NT: Array, notes: dict[str, Any]) -> pa.Table:
    """Return SCORES with one row per sample and target, target by target; group = number of the target."""
    n, t = scores_NT.shape
    codes = np.repeat(np.arange(t, dtype=np.int32), n)
    return scores_table(np.tile(ids, t), Labels(codes, targets), codes, scores_NT.T.reshape(-1), notes)


def columns_of(scores: pa.Table) -> tuple[Array, Array, Array]:
    """Return (ids, group, score) of SCORES."""
    return scores["sample_id"].to_numpy(), scores["group"].to_numpy(), scores["score"].to_numpy()


def matrix_of(scores: pa.Table) -> tuple[Array, Array]:
    """Return (ids [N] ascending, scores_NT) of SCORES that hold every sample under every group number.

    Raises:
        InputError: a (sample, target) pair is missing or there twice.
    """
    ids, group, score = columns_of(scores)
    samples, targets = np.unique(ids), np.unique(group)
    order = np.lexsort((ids, group))
    whole = len(ids) == len(samples) * len(targets) and (
        (ids[order].reshape(len(targets), -1) == samples).all()
        and (group[order].reshape(len(targets), -1) == targets[:, None]).all()
    )
    if not whole:
        raise InputError("these scores do not hold every sample once under every target; score again.")
    return samples, score[order].reshape(len(targets), -1).T


def picks_table(ids: Array, group: Array, score: Array, selector: str, budget: int, seed: int) -> pa.Table:
    """Return PICKS for chosen rows, best first."""
    n = len(ids)
    columns = {
        "sample_id": pa.array(ids.astype(np.uint64)),
        "rank": pa.array(np.arange(n)),
        "group": pa.array(group.astype(np.int64)),
        "score": pa.array(score.astype(np.float64)),
        "selector": pa.repeat(selector, n),
        "budget": pa.array(np.full(n, budget, np.int64)),
        "seed": pa.array(np.full(n, seed, np.int64)),
    }
    return conform(pa.table(columns), PICKS, "picks")


def read_notes(scores: pa.Table) -> dict[str, Any]:
    """Return the counts that a method left in its scores' footer."""
    return notes_in(scores.schema.metadata or {})


def notes_in(footer: dict[bytes, bytes]) -> dict[str, Any]:
    """Return the notes in a file's footer."""
    return parse_json(footer.get(NOTES, b"{}"), "notes of scores")
