"""Loss: the mean cross-entropy over a row's trained tokens, in nats."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ..config import FeatureConfig, FeatureSpec
from ..kind import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...models.cost import Cost, RowSize
    from ...models.shape import Shape
    from ...models.taps.forward import LossTap


class Loss(Kind):
    """One number per row."""

    name = "loss"

    class Config(FeatureConfig):
        """Nothing of its own."""

        kind: Literal["loss"] = Field("loss", description="This kind: loss.")

    def dim(self, hidden: "Callable[[], int]", tasks: int) -> int:
        """Return 1."""
        return 1

    def recipe(self) -> dict[str, Any]:
        """Return nothing: text and precision say it all."""
        return {}

    def tap(self, model: Any, spec: FeatureSpec, number: int) -> "LossTap":
        """Return the tap of one forward pass."""
        from ...models.taps.forward import LossTap

        return LossTap(model)

    def cost(self, shape: "Shape", row: "RowSize", tasks: int) -> "Cost":
        """Return a forward pass."""
        from ...models.cost import forward_flop

        return forward_flop(shape, row)


KIND = Loss
