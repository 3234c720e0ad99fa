"""What a method's scores say of themselves: rows that it could not tell apart, clusters without a row."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .rows import read_notes


@dataclass(frozen=True)
class Diagnosis:
    """Counts over SCORES: `rows` scored, those whose best score is 0; None where the method has no such thing.

    `zero_features`: rows whose feature is all zeros, at the checkpoint that has most of them.
    """

    rows: int
    zero_scores: int
    zero_features: int | None
    clusters: int | None
    empty_clusters: int | None


def diagnose(scores: pa.Table) -> Diagnosis:
    """Count in SCORES, and in the notes that a method left with them."""
    best = scores.group_by("sample_id").aggregate([("score", "max")])["score_max"]
    notes = read_notes(scores)
    zero = _zero_rows(notes)
    zeros = pc.sum(pc.equal(best, 0.0)).as_py() or 0
    most = max(zero.values(), default=0) if zero is not None else None
    return Diagnosis(len(best), zeros, most, notes.get("clusters"), notes.get("empty_clusters"))


def without_feature(notes: dict[str, Any], rows: int) -> str:
    """Say how many of a pool's rows have zeros alone in what a method read, by what it left with its scores; "": none."""
    zero = _zero_rows(notes) or {}
    if not any(zero.values()):
        return ""
    most = f"{max(zero.values()):,} of {rows:,} rows have no"
    if not isinstance(notes["zero_rows"], dict):
        return f"{most} feature (all zeros): nothing tells them apart."
    by_step = ", ".join(f"{step}: {n:,}" for step, n in sorted(zero.items()))
    by_checkpoint = "" if len(set(zero.values())) == 1 else f" (by checkpoint: {by_step})"
    return (
        f"{most} gradient and score 0{by_checkpoint}: text-only rows have none in the projector. Features of more modules "
        "(which: lora) give them one."
    )


def _zero_rows(notes: dict[str, Any]) -> dict[int, int] | None:
    """Return rows without a feature by checkpoint (0 where a method reads one alone); None where it counts none."""
    counts = notes.get("zero_rows")
    if counts is None:
        return None
    return {int(step): n for step, n in counts.items()} if isinstance(counts, dict) else {0: counts}
