"""What is computed for each row, and on what: configs of the feature stage."""

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, model_validator

from ..models.projections.config import ProjectionConfig
from ..models.specs import Mode, Pooling, Reading
from ..pool.shown import Pictures
from ..store.config import Config
from ..store.keys import FeatureKey, recipe_text
from ..store.usage import MAX_REFUSED, Usage


class FeatureConfig(Config):
    """One kind of feature. Lengths in tokens, image tokens included.

    `gradient`: projected per-sample gradients. `influence`: their exact inner products with the mean gradients of a target
    set's tasks, without a projection. `trajectory`: attention's singular values. `loss`: mean loss a trained token.
    `pictures`: how a picture's file becomes RGB (`pool/shown.py`).
    `embedding`: means of what the model makes of the text, the picture, or both (`pooling`).

    `image_root`: where the pool's pictures lie now, if not where ingest found them; `target_image_root`: those of the
    target pool. `max_refused`: the share of rows that may be refused before that is an error. `max_part_retries`: how often
    a part may end its actor's process before the run ends and names it. None of the four changes a number.
    """

    kind: Literal["gradient", "influence", "trajectory", "loss", "embedding"] = "gradient"
    # gradient, influence
    which: str = "projector"
    mode: Mode = "sgd"
    projection: ProjectionConfig = ProjectionConfig()
    unit_rows: bool = True
    # trajectory
    top_k: int = Field(5, ge=1)
    attention: Reading = "flat"
    # embedding
    pooling: Pooling = "text"
    # the text that is fed
    template: str = "v1"
    image_mode: Literal["pad", "square"] = "pad"
    pictures: Pictures = "white"
    max_len: int = Field(2048, ge=8)
    # how it is computed
    precision: Literal["float32", "bfloat16", "float64"] = "float32"
    dtype: Literal["float32", "float16", "int8", "bit1"] = "float32"
    token_budget: int = Field(16_384, ge=1)
    max_rows: int = Field(64, ge=1)
    rows_per_part: int = Field(256, ge=1)
    checkpoints_per_pass: int = Field(4, ge=1)
    # where pictures are, and what may be missing
    image_root: str | None = None
    target_image_root: str | None = None
    max_refused: float = Field(MAX_REFUSED, ge=0, le=1)
    max_part_retries: int = Field(3, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> "FeatureConfig":
        if self.kind == "gradient" and self.projection.kind == "none":
            raise ValueError("projection 'none' is for tests: a stored gradient needs a projection with a fixed dim")
        if self.kind == "gradient" and self.projection.kind == "kron" and self.mode != "sgd":
            raise ValueError(f"projection 'kron' never forms the gradient, which mode {self.mode!r} needs: take sjlt")
        if self.kind == "gradient" and self.dtype == "float16" and not self.unit_rows:
            raise ValueError("raw gradients underflow in float16; keep unit_rows, or store float32")
        if self.kind == "trajectory" and self.attention == "xmas" and self.rows_per_part % 8:
            raise ValueError(
                "attention 'xmas' takes batches of 8 in the pool's order: give rows_per_part a multiple of 8"
            )
        if self.kind == "embedding" and self.dtype in ("float32", "float16"):
            return self
        if self.kind != "gradient" and self.dtype != "float32":
            raise ValueError(f"{self.kind} features are narrow and keep their scale: store them as float32")
        return self

    @property
    def uses_gradients(self) -> bool:
        """Say whether each row is differentiated."""
        return self.kind in ("gradient", "influence")

    @property
    def dim(self) -> int:
        """Width of the stored vector; 0 for influence (one column a task of the targets) and embedding (the model's)."""
        return {"gradient": self.projection.dim, "trajectory": self.top_k, "loss": 1}.get(self.kind, 0)

    def for_targets(self) -> "FeatureConfig":
        """Return what targets are computed with: plain gradients (LESS compares Adam's updates with those), unquantised."""
        return self.model_copy(update={"mode": "sgd", "dtype": "float32"}) if self.uses_gradients else self

    def recipe(self, text: dict[str, Any], targets: dict[str, Any] | None = None) -> str:
        """Return the maths as canonical JSON; `text` is `Encoder.recipe()`. Batching and parts leave it alone.

        `targets`: tasks and digest of the target means, for influence.
        """
        facts: dict[str, Any] = {"text": text, "precision": self.precision}
        if self.uses_gradients:
            facts |= {"which": self.which, "mode": self.mode}
        if self.kind == "gradient":
            facts |= {"projection": self.projection.facts(), "unit_rows": self.unit_rows}
        if self.kind == "embedding":
            facts["pooling"] = self.pooling
        if targets is not None:
            facts["targets"] = targets
        if self.kind == "trajectory":
            facts |= {"reading": self.attention, "rows": "text after the image", "pads": "masked"}
            if self.attention == "xmas":
                facts |= {"rows": "from 612 on", "pads": "counted", "batches": "8 in pool order"}
                facts |= {"release": "2025-10: q and k exchanged", "start": "seed 42 anew each part"}
        return recipe_text(**facts)


@dataclass(frozen=True)
class CheckpointRef:
    """A checkpoint of the proxy: its training step and its folder.

    `optimizer`: file or folder of its Adam moments, for modes that need them; None looks in the checkpoint's folder.
    """

    step: int
    path: str
    optimizer: str | None = None


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
    out: str
    config: FeatureConfig
    checkpoints: tuple[CheckpointRef, ...]
    keys: tuple[FeatureKey, ...]
    targets: bool = False
    # influence: the pool whose mean gradients the rows are measured against
    target_pool: str | None = None
    device: str = "cpu"
    threads: int = 1


@dataclass
class FeatureReport:
    """What a feature run did; `tokens` and `padded` count the tokens computed and those of them that were pads.

    `extra`: what the taps counted, such as the share of second moments under Adam's epsilon. `failed`: checkpoints that
    could not be loaded, by step, and why; the parts of the others are there. `rows` counts the rows computed this time,
    once a checkpoint; `usage` and `refused` count the pool's, each once; `notes` are further lines for the user.
    """

    kind: str
    steps: list[int]
    rows: int = 0
    parts: int = 0
    skipped_parts: int = 0
    refused: int = 0
    tokens: int = 0
    padded: int = 0
    seconds: float = 0.0
    failed: dict[int, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    usage: Usage = field(default_factory=lambda: Usage(0, {}, ""))
    notes: list[str] = field(default_factory=list)
