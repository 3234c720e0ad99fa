"""What kinds share that differentiate each row: which Linears, and what is made of their gradients."""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from ...models.specs import NEED_MOMENTS, Mode
from ..config import CheckpointRef, FeatureConfig
from ..kind import Held, Kind

if TYPE_CHECKING:
    from ...models.shape import Shape


class Differentiated(Kind):
    """Base of `gradient` and `influence`."""

    along = True
    work = "gradient"

    class Config(FeatureConfig):
        """Which gradient."""

        which: str = Field(
            "projector",
            description="The Linears: projector, lora, projector+lora, or re: and a regex over their names.",
        )
        mode: Mode = Field("sgd", description="The gradient, its sign, or Adam's update.")

    def recipe(self) -> dict[str, Any]:
        """Return the Linears and the mode."""
        return {"which": self.config.which, "mode": self.config.mode}

    def memory(self, shape: "Shape", held: Held) -> float:
        """Return the bytes of a forward and a backward pass, logits, one module's per-sample gradients, Adam's moments."""
        from ...models.cost import VALUE_BYTES, activation_bytes_per_token, elements

        value, tapped = VALUE_BYTES[self.config.precision], shape.chosen(self.config.which)
        # one module's per-sample gradients at a time
        buffer = held.rows * max(d.elements for d in tapped) * value
        moments = held.models * elements(tapped) * 8 if self.reads_optimizer else 0
        buffer += self.logits(shape, held)
        return buffer + moments + held.rows * held.longest * activation_bytes_per_token(shape, value)

    def for_targets(self) -> FeatureConfig:
        """Return plain gradients (LESS compares Adam's updates with those), unquantised."""
        return self.config.model_copy(update={"mode": "sgd", "dtype": "float32"})

    @property
    def reads_optimizer(self) -> bool:
        """Say whether the mode reads Adam's moments."""
        return self.config.mode in NEED_MOMENTS

    def optimizer(self, checkpoint: CheckpointRef) -> str:
        """Return the digest of Adam's moments, for the modes that read them."""
        from ..modes import optimizer_digest

        return optimizer_digest(self.config.mode, checkpoint)
