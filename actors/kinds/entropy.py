"""Entropy: how undecided the model is at a row's answers, the mean over trained tokens, in nats."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ..config import FeatureConfig, FeatureSpec
from ..kind import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...models.cost import Cost, RowSize
    from ...models.shape import Shape
    from ...models.taps.entropy import EntropyTap


class Entropy(Kind):
    """One number a row, from 0 (one word is certain) to log V (all words are alike)."""

    name = "entropy"

    class Config(FeatureConfig):
        """Nothing of its own."""

        kind: Literal["entropy"] = Field("entropy", description="This kind: entropy.")

    def dim(self, hidden: "Callable[[], int]", tasks: int) -> int:
        """Return 1."""
        return 1

    def recipe(self) -> dict[str, Any]:
        """Return nothing: text and precision say it all."""
        return {}

    def tap(self, model: Any, spec: FeatureSpec, number: int) -> "EntropyTap":
        """Return the tap of one forward pass."""
        from ...models.taps.entropy import EntropyTap

        return EntropyTap(model)

    def cost(self, shape: "Shape", row: "RowSize", tasks: int) -> "Cost":
        """Return a forward pass."""
        from ...models.cost import forward_flop

        return forward_flop(shape, row)


KIND = Entropy
