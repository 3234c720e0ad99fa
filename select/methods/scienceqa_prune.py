"""ScienceQA pruned by three principles: everything covered, pictures first, harder questions preferred.

The selection behind LLaVA on Mistral fine-tuned on 1,000 of ScienceQA's 12,726 records; its page names the principles, not
their weights, so each is a knob. The order of all rows is settled without a budget: a larger one holds a smaller one.
Axis: N rows.
"""

import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...store.arrays import Array
from ...store.config import Config
from ...store.errors import InputError
from ..needs import Needs
from ..pickers import best_first
from ..ranked import Ranked
from ..rows import Labels, scores_table
from ..view import View

Covered = Literal["skill", "topic", "subject"]


class ScienceQAPrune(Ranked):
    """First the hardest row of each skill, topic and subject not seen yet; then rows with a picture; then the rest.

    score = minus the place in that order; group = the stage (number of the covered field, then pictures, then the rest),
    target = its name. Ties go to the smaller sample_id.
    """

    name = "scienceqa_prune"
    needs = Needs(fields=("subject", "topic", "skill", "grade", "choices", "solution"))
    score_means = "order"

    class Config(Config):
        """The three principles.

        Difficulty = Σ weight × rank in [0, 1] of grade, number of choices, and characters of the solution.
        """

        cover: tuple[Covered, ...] = Field(
            ("skill", "topic", "subject"),
            description="Fields of which every value is taken at least once, in this order; empty: none.",
        )
        images_first: bool = Field(True, description="What follows begins with the rows that have a picture.")
        grade_weight: float = Field(
            1.0,
            ge=0,
            description="The weight of a question's grade in its difficulty, as a rank in [0, 1]; all weights 0 leave "
            "the order to sample_id.",
        )
        choices_weight: float = Field(1.0, ge=0, description="The weight of its number of choices.")
        solution_weight: float = Field(1.0, ge=0, description="The weight of the characters of its solution.")

    def score(self, view: View, seed: int) -> pa.Table:
        """Return one score per row.

        Raises:
            InputError: a row lacks a field that is read, or it holds something else than ScienceQA's.
        """
        order = best_first(view.ids, self._difficulty(view))
        stage = np.full(len(order), len(self.config.cover) + 1)
        for number, field in enumerate(self.config.cover):
            values = _field(view, field, _text)
            # a row that stands for an earlier field's value brings its own of this one
            seen = {values[i] for i in order if stage[i] < number}
            for i in order:
                if values[i] not in seen:
                    seen.add(values[i])
                    stage[i] = number
        if self.config.images_first:
            free = stage > len(self.config.cover)
            stage[free & view.column("has_image")] = len(self.config.cover)
        place = np.empty(len(order), np.int64)
        place[order[np.argsort(stage[order], kind="stable")]] = np.arange(len(order))
        names = [*self.config.cover, "image", "rest"]
        return scores_table(view.ids, Labels(stage, names), stage, -place.astype(np.float64))

    def _difficulty(self, view: View) -> Array:
        """Return Σ weight × rank [N]; fields of weight 0 are not read."""
        config = self.config
        measures: list[tuple[str, float, Callable[[Any], float]]] = [
            ("grade", config.grade_weight, _grade),
            ("choices", config.choices_weight, _count),
            ("solution", config.solution_weight, _length),
        ]
        total = np.zeros(len(view.ids))
        for field, weight, measure in measures:
            if weight:
                total += weight * mid_rank(np.array(_field(view, field, measure), np.float64))
        return total


def mid_rank(values: Array) -> Array:
    """Return the share of rows below each, equal ones counted half [N], in (0, 1): no unit, no outliers."""
    _, number_N, counts = np.unique(values, return_inverse=True, return_counts=True)
    return ((np.cumsum(counts) - counts / 2) / max(1, len(values)))[number_N]


def _grade(value: Any) -> float:
    match = re.fullmatch(r"grade(\d+)", value)
    if match is None:
        raise ValueError("no grade")
    return float(match[1])


def _count(value: Any) -> float:
    if not isinstance(value, list):
        raise TypeError("no list")
    return float(len(value))


def _length(value: Any) -> float:
    return float(len(_text(value)))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _field(view: View, field: str, measure: Callable[[Any], Any]) -> list[Any]:
    column = view.column(f"extra:{field}")
    missing = [i for i, value in enumerate(column) if value is None]
    if missing:
        raise InputError(
            f"scienceqa_prune reads {field!r}, which {len(missing)} of {len(column)} rows do not have (first sample_id "
            f"{int(view.ids[missing[0]])}): it is for pools of ScienceQA's own files; ingest those (format scienceqa)."
        )
    out = []
    for i, value in enumerate(column):
        try:
            out.append(measure(value))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"scienceqa_prune: {field!r} of sample_id {int(view.ids[i])} is {value!r}, not as ScienceQA has it."
            ) from error
    return out


SELECTOR = ScienceQAPrune
