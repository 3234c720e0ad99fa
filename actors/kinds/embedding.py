"""Embedding: means of what the model makes of the text, the picture, or both."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ...models.specs import Pooling, pooled_width
from ..config import FeatureConfig, FeatureSpec
from ..kind import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...models.cost import Cost, RowSize
    from ...models.shape import Shape
    from ...models.taps.forward import EmbeddingTap


class Embedding(Kind):
    """As wide as the model's decoder, or twice (`both`); needs no label."""

    name = "embedding"
    needs_labels = False
    head = False

    class Config(FeatureConfig):
        """What is pooled."""

        stores: ClassVar[tuple[str, ...]] = ("float32", "float16")

        kind: Literal["embedding"] = Field("embedding", description="This kind: embedding.")
        pooling: Pooling = Field(
            "text",
            description="The mean last hidden state over text positions, the mean projected image token, or both in a "
            "row.",
        )

    def dim(self, hidden: "Callable[[], int]", tasks: int) -> int:
        """Return the decoder's width, or twice that."""
        return pooled_width(hidden(), self.config.pooling)

    def recipe(self) -> dict[str, Any]:
        """Return what it is the mean of."""
        return {"pooling": self.config.pooling}

    def tap(self, model: Any, spec: FeatureSpec, number: int) -> "EmbeddingTap":
        """Return the tap of one forward pass."""
        from ...models.taps.forward import EmbeddingTap

        return EmbeddingTap(model, self.config.pooling)

    def cost(self, shape: "Shape", row: "RowSize", tasks: int) -> "Cost":
        """Return a forward pass without the LM head; for `image` the decoder does not run."""
        from ...models.cost import Cost, forward_flop

        forward = forward_flop(shape, row, head=False)
        if self.config.pooling != "image":
            return forward
        return Cost({k: v for k, v in forward.items.items() if k in ("vision fwd", "projector fwd")})


KIND = Embedding
