"""What is computed for each row, and on what: configs of the feature stage."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from ..pool.inputs import InputConfig
from ..store.config import Config
from ..store.keys import FeatureKey
from ..store.names import FeatureName
from ..store.usage import MAX_REFUSED, Usage
from .registry import UnknownKindError, find


class FeatureConfig(InputConfig):
    """What every kind of feature is computed with; a kind's own fields stand in its file of `kinds/`.

    `FeatureConfig(kind=…, …)` and `FeatureConfig.parse({"kind": …, …})` are the kind's own Config (`gradient` where none is
    named), which refuses all other fields. The fields from `image_root` on change no number.
    """

    # storage that a kind may be asked for
    stores: ClassVar[tuple[str, ...]] = ("float32",)

    kind: str = Field("gradient", description="What is computed: a name of `actors/kinds/`.")
    name: FeatureName = Field(
        default_factory=lambda fields: fields.get("kind", ""),
        description="What folders, stages and selectors call the feature; left out: its kind.",
    )
    # how it is computed
    precision: Literal["float32", "bfloat16", "float64"] = Field("float32", description="What the model computes in.")
    dtype: Literal["float32", "float16", "int8", "bit1"] = Field("float32", description="What vectors are stored as.")
    token_budget: int = Field(16_384, ge=1, description="The size of a batch in tokens, pads included.")
    max_rows: int = Field(64, ge=1, description="The most rows of a batch.")
    rows_per_part: int = Field(
        256, ge=1, description="Rows of a part: what is done again at most if the stage is cut off."
    )
    checkpoints_per_pass: int = Field(4, ge=1, description="Checkpoints that are computed on one reading of the pool.")
    # where pictures are, and what may be missing
    image_root: str | None = Field(
        None, description="Where the pool's pictures lie now, if not where ingest found them."
    )
    target_image_root: str | None = Field(None, description="The same for the target pool.")
    max_refused: float = Field(
        MAX_REFUSED, ge=0, le=1, description="The share of rows that may be refused before that is an error."
    )
    max_part_retries: int = Field(
        3, ge=1, description="How often a part may end its actor's process before the run ends and names it."
    )

    def __new__(cls, **values: Any) -> Self:
        """Make the config of the kind that is named."""
        return super().__new__(cls.variant(values))

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as plain values: a kind's file of one's own is no module that a worker could import by its name."""
        return FeatureConfig.model_validate, (self.model_dump(),)

    @classmethod
    def variant(cls, values: dict[str, Any]) -> type[Any]:
        """Return the Config of the kind that the values name. Raises: `ValidationError`, with the kind's neighbours."""
        if cls is not FeatureConfig:
            return cls
        kind = values.get("kind", cls.model_fields["kind"].default)
        try:
            return find(kind).Config
        except UnknownKindError as error:
            wrong = PydanticCustomError("unknown_kind", "{said}", {"said": str(error).removesuffix(".")})
            raise ValidationError.from_exception_data(
                cls.__name__, [InitErrorDetails(type=wrong, loc=("kind",), input=kind)]
            ) from None

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_kind(cls, values: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        if cls is FeatureConfig and isinstance(values, dict):
            return cls.variant(values).model_validate(values)
        return handler(values)

    @model_validator(mode="after")
    def _is_stored(self) -> Self:
        if self.dtype not in self.stores:
            raise ValueError(f"{self.kind} features are narrow and keep their scale: store them as float32")
        return self


@dataclass(frozen=True)
class CheckpointRef:
    """A checkpoint of the proxy: its training step and its folder.

    `optimizer`: file or folder of its Adam moments, for modes that need them; None looks in the checkpoint's folder.
    """

    step: int
    path: str
    optimizer: str | None = None


class ActorResources(Config):
    """What an actor pool may take."""

    actors: int = Field(1, ge=1, description="Processes that compute features.")
    cpus_per_actor: float = Field(1, ge=0, description="CPUs of each.")
    gpus_per_actor: float = Field(0, ge=0, description="GPUs of each.")
    loaders: int = Field(
        0, ge=0, description="Processes that decode and tokenise off the GPU's path; 0: each actor does it itself."
    )
    threads: int = Field(1, ge=1, description="Torch threads of each.")
    inline_parts: int = Field(
        0,
        ge=0,
        description="A pass of at most so many parts is computed by the process that asks for it: an actor takes longer "
        "to start. A part that kills its process then ends the run.",
    )

    @model_validator(mode="after")
    def _inline_is_on_the_cpu(self) -> Self:
        if self.inline_parts and self.gpus_per_actor:
            raise ValueError(
                "inline_parts computes on a CPU, where gpus_per_actor asks for a GPU: remove one of the two"
            )
        return self


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
    once a checkpoint; `usage` and `refused` count the pool's, each once; `notes` are further lines for the user. `ran`: of
    kinds that differentiate, rows computed by what ran their decoder, and why it was not the lean one.
    """

    feature: str
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
    ran: dict[str, int] = field(default_factory=dict)
    usage: Usage = field(default_factory=lambda: Usage(0, {}, ""))
    notes: list[str] = field(default_factory=list)
