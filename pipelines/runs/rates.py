"""What a GPU achieves: measured rates, from which `vinnow plan` makes GPU-hours. `rates.json` holds the package's own."""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ...store.config import Config
from ...store.errors import InputError
from ...store.files import read_json

Work = Literal["gradient", "forward", "training"]
OURS = Path(__file__).with_name("rates.json")


class PlanConfig(Config):
    """How `vinnow plan` prices a run; nothing that a run computes depends on it."""

    tflops: float | None = Field(None, gt=0, description="What one GPU achieves, in TFLOP/s, for all stages alike.")
    rate_file: str | None = Field(
        None,
        description="Measured rates of your own, a JSON list like the package's `rates.json`; neither: the package's.",
    )
    gpu_hour_price: float | None = Field(
        None, ge=0, description="What an hour of one GPU costs, in whatever money the plan is then in."
    )
    gpu_memory_gb: float | None = Field(
        None, gt=0, description="A card's memory in 10^9 bytes, which stages must fit into."
    )

    @model_validator(mode="after")
    def _one(self) -> "PlanConfig":
        if self.tflops is not None and self.rate_file is not None:
            raise ValueError("give tflops or rate_file, not both")
        return self


class Rate(Config):
    """One measurement."""

    gpu: str = Field(description="The card.")
    precision: str = Field(description="What it computed in.")
    work: Work = Field(description="What it did.")
    samples_per_s: float = Field(gt=0, description="Rows per second.")
    tflop_per_sample: float = Field(gt=0, description="TFLOP of a row, as `models/cost.py` counts.")
    measured: str = Field(description="When.")
    source: str = Field(description="Where its row stands.")
    projection: str | None = Field(None, description="The projection of gradients, where there was one.")
    zero_stage: Literal[0, 1, 2, 3] | None = Field(
        None, description="The training's ZeRO stage; 3 is another pace: weights travel for every layer."
    )

    @property
    def tflops(self) -> float:
        """Achieved TFLOP/s."""
        return self.samples_per_s * self.tflop_per_sample


def load_rates(config: PlanConfig) -> list[Rate]:
    """Read the measured rates, oldest first.

    Raises:
        InputError: no such file, no JSON list, an unknown or missing field, or an empty list.
    """
    path = config.rate_file or str(OURS)
    rows = read_json(path) if config.rate_file else json.loads(OURS.read_text(encoding="utf-8"))
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) for r in rows):
        raise InputError(f"{path!r} must hold a JSON list of rates; runs/rates.json of the package shows one.")
    return [Rate.parse(row, f"{path}[{i}]") for i, row in enumerate(rows)]


def rate_for(rates: list[Rate], work: Work, projection: str | None = None, zero_stage: int | None = None) -> Rate:
    """Return the newest rate of this kind of work, with this projection, and under ZeRO-3 or not, if it was measured.

    Where none of the kind was measured, the newest of all (its text says of what).
    """
    alike = [r for r in rates if r.work == work]
    alike = [r for r in alike if (r.zero_stage == 3) == (zero_stage == 3)] or alike
    return ([r for r in alike if r.projection == projection] or alike or rates)[-1]
