"""What is computed for each row, and on what: configs of the feature stage."""

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, model_validator

from ..models.projection import ProjectionConfig
from ..store.config import Config
from ..store.keys import FeatureKey, recipe_text


class FeatureConfig(Config):
    """One kind of feature. Lengths in tokens, image tokens included."""

    kind: Literal["gradient", "trajectory", "loss"] = "gradient"
    # gradient
    which: str = "projector"
    mode: Literal["sgd", "sign"] = "sgd"
    projection: ProjectionConfig = ProjectionConfig()
    unit_rows: bool = True
    # trajectory
    top_k: int = Field(5, ge=1)
    # the text that is fed
    template: str = "v1"
    image_mode: Literal["pad", "square"] = "pad"
    max_len: int = Field(2048, ge=8)
    # how it is computed
    precision: Literal["float32", "bfloat16", "float64"] = "float32"
    dtype: Literal["float16", "float32"] = "float32"
    token_budget: int = Field(16_384, ge=1)
    max_rows: int = Field(64, ge=1)
    rows_per_part: int = Field(256, ge=1)
    checkpoints_per_pass: int = Field(4, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> "FeatureConfig":
        if self.kind == "gradient" and self.projection.kind == "none":
            raise ValueError("projection 'none' is for tests: a stored gradient needs a projection with a fixed dim")
        if self.kind == "gradient" and self.dtype == "float16" and not self.unit_rows:
            raise ValueError("raw gradients underflow in float16; keep unit_rows, or store float32")
        return self

    @property
    def dim(self) -> int:
        """Width of the stored vector."""
        return {"gradient": self.projection.dim, "trajectory": self.top_k, "loss": 1}[self.kind]

    def recipe(self, text: dict[str, Any]) -> str:
        """Return the maths as canonical JSON; `text` is `Encoder.recipe()`. Batching and parts leave it alone."""
        facts: dict[str, Any] = {"text": text, "precision": self.precision}
        if self.kind == "gradient":
            facts |= {
                "which": self.which,
                "mode": self.mode,
                "projection": self.projection.model_dump(),
                "unit_rows": self.unit_rows,
            }
        if self.kind == "trajectory":
            facts |= {"reading": "flat", "rows": "text after the image", "pads": "masked"}
        return recipe_text(**facts)


@dataclass(frozen=True)
class CheckpointRef:
    """A checkpoint of the proxy: its training step and its folder."""

    step: int
    path: str


class ActorResources(Config):
    """What an actor pool may take. `loaders` decode and tokenise off the GPU's path; 0: each actor does it itself."""

    actors: int = Field(1, ge=1)
    cpus_per_actor: float = Field(1, ge=0)
    gpus_per_actor: float = Field(0, ge=0)
    loaders: int = Field(0, ge=0)
    threads: int = Field(1, ge=1)


@dataclass(frozen=True)
class FeatureSpec:
    """All that an actor is told: plain values, so that it travels to any worker."""

    pool: str
    image_root: str | None
    out: str
    config: FeatureConfig
    checkpoints: tuple[CheckpointRef, ...]
    keys: tuple[FeatureKey, ...]
    targets: bool = False
    device: str = "cpu"
    threads: int = 1


@dataclass
class FeatureReport:
    """What a feature run did; `tokens` and `padded` count the tokens computed and those of them that were pads."""

    kind: str
    steps: list[int]
    rows: int = 0
    parts: int = 0
    skipped_parts: int = 0
    refused: int = 0
    tokens: int = 0
    padded: int = 0
    seconds: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)
