"""What a kind of feature offers: one file in `kinds/` that ends in `KIND = ItsClass`.

Axes: N rows of a part, D width of a vector. Modules of kinds load neither torch nor transformers, since commands that
compute nothing read configs with them: whatever needs those is imported where it is used.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..pool.batching import token_batches
from ..store.arrays import Array
from ..store.keys import recipe_text
from .config import CheckpointRef, FeatureConfig, FeatureSpec
from .registry import find

if TYPE_CHECKING:
    from ..models.cost import Cost, RowSize
    from ..models.shape import Shape
    from ..models.taps.base import Tap


@dataclass(frozen=True)
class Held:
    """What an actor holds at one time: `rows` of a batch, tokens of its longest row, checkpoints, tasks of the targets."""

    rows: int
    longest: int
    models: int
    tasks: int


class Kind(ABC):
    """One kind of feature: how wide it is, what its numbers depend on, how it is computed and what it costs.

    `needs_labels`: a row without a trained token has none, and is refused. `along`: it says something only along the
    checkpoints of a training, or weighed by their learning rates. `of_targets`: a target set's rows get it too. `aims`: it
    is measured against the mean gradients of a target set's tasks, which are made first. `head`: its pass goes through the
    LM head, so that logits are counted in `memory`. `work`: the measured rate that prices it.
    """

    name: ClassVar[str]
    Config: ClassVar[type[FeatureConfig]]
    needs_labels: ClassVar[bool] = True
    along: ClassVar[bool] = False
    of_targets: ClassVar[bool] = False
    aims: ClassVar[bool] = False
    head: ClassVar[bool] = True
    work: ClassVar[Literal["gradient", "forward"]] = "forward"

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def dim(self, hidden: Callable[[], int], tasks: int) -> int:
        """Return D; `hidden` gives the width of the model's decoder, `tasks` is the number of the target set's tasks."""

    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """Return what its numbers depend on beside text and precision, as plain values; batching and parts stay out."""

    @abstractmethod
    def tap(self, model: Any, spec: FeatureSpec, number: int) -> "Tap":
        """Return what turns a batch into vectors [B, D] at the spec's checkpoint `number`."""

    @abstractmethod
    def cost(self, shape: "Shape", row: "RowSize", tasks: int) -> "Cost":
        """Return what a mean row costs at one checkpoint, in TFLOP by item."""

    def memory(self, shape: "Shape", held: Held) -> float:
        """Return the bytes that an actor needs beside the weights.

        By default those of a forward pass, one layer at a time, and the logits that exist at one time.
        """
        from ..models.cost import VALUE_BYTES, activation_bytes_per_token

        pass_bytes = activation_bytes_per_token(shape, VALUE_BYTES[self.config.precision], 1)
        return held.rows * held.longest * pass_bytes + self.logits(shape, held)

    def logits(self, shape: "Shape", held: Held) -> float:
        """Return the bytes of the logits that exist at one time; 0 for a kind without `head`."""
        from ..models.cost import VALUE_BYTES, logit_bytes

        return logit_bytes(shape, held.rows * held.longest, VALUE_BYTES[self.config.precision]) if self.head else 0.0

    @property
    def projection(self) -> str | None:
        """Which projection's measured rate prices it, where it has one."""
        return None

    def batches(self, lengths: list[int]) -> list[list[int]]:
        """Return a part's rows (by their lengths in tokens) in batches, each row once."""
        return token_batches(lengths, self.config.token_budget, self.config.max_rows)

    def finished(self, vec_ND: Array, norm_N: Array) -> Array:
        """Return the vectors as they are stored, of those that the tap gave and their norms."""
        return vec_ND

    def for_targets(self) -> FeatureConfig:
        """Return what a target set's rows are computed with."""
        return self.config

    @property
    def reads_optimizer(self) -> bool:
        """Say whether a checkpoint's optimizer state changes its numbers."""
        return False

    def optimizer(self, checkpoint: CheckpointRef) -> str:
        """Return what names a checkpoint's optimizer state in a feature key; "" where no number depends on it."""
        return ""

    def key_recipe(self, text: dict[str, Any], targets: dict[str, Any] | None = None) -> str:
        """Return the maths as canonical JSON; `text` is `Encoder.recipe()`.

        `targets`: tasks and digest of the target set, for a kind that aims at one.
        """
        facts: dict[str, Any] = {"text": text, "precision": self.config.precision} | self.recipe()
        return recipe_text(**(facts if targets is None else facts | {"targets": targets}))


def kind_of(config: FeatureConfig) -> Kind:
    """Return the kind that a config is of, with it."""
    return find(config.kind)(config)
