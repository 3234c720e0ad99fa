"""Trajectory: singular values of the attention from text to the picture, at each checkpoint of a proxy (XMAS)."""

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from ...models.specs import Reading
from ..config import FeatureConfig, FeatureSpec
from ..kind import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...models.cost import Cost, RowSize
    from ...models.shape import Shape
    from ...models.taps.attention import AttentionTap

# rows of a batch whose values depend on batch-mates, as the released code has it
_PUBLISHED_BATCH = 8


class Trajectory(Kind):
    """`top_k` numbers a row, in descending order; rows without a picture have zeros. Needs no label."""

    name = "trajectory"
    needs_labels = False
    head = False
    along = True

    class Config(FeatureConfig):
        """How attention is read."""

        kind: Literal["trajectory"] = Field("trajectory", description="This kind: trajectory.")
        top_k: int = Field(5, ge=1, description="How many singular values are kept.")
        attention: Reading = Field("flat", description="How attention is read (`models/taps/attention.py`).")

        @model_validator(mode="after")
        def _fits(self) -> Self:
            if self.attention == "xmas" and self.rows_per_part % _PUBLISHED_BATCH:
                raise ValueError(
                    "attention 'xmas' takes batches of 8 in the pool's order: give rows_per_part a multiple of 8"
                )
            return self

    def dim(self, hidden: "Callable[[], int]", tasks: int) -> int:
        """Return the number of singular values."""
        return self.config.top_k

    def recipe(self) -> dict[str, Any]:
        """Return how attention is read, and which rows of it."""
        facts = {"reading": self.config.attention, "rows": "text after the image", "pads": "masked"}
        if self.config.attention == "xmas":
            facts |= {"rows": "from 612 on", "pads": "counted", "batches": "8 in pool order"}
            facts |= {"release": "2025-10: q and k exchanged", "start": "seed 42 anew each part"}
        return facts

    def tap(self, model: Any, spec: FeatureSpec, number: int) -> "AttentionTap":
        """Return the tap of queries and keys."""
        from ...models.taps.attention import AttentionTap

        return AttentionTap(model, self.config.top_k, self.config.attention)

    def cost(self, shape: "Shape", row: "RowSize", tasks: int) -> "Cost":
        """Return a forward pass without the LM head, and the attention of text rows."""
        from ...models.cost import trajectory_flop

        return trajectory_flop(shape, row)

    def batches(self, lengths: list[int]) -> list[list[int]]:
        """Return batches; the published values depend on batch-mates, so under `xmas` these are the published ones."""
        if self.config.attention != "xmas":
            return super().batches(lengths)
        starts = range(0, len(lengths), _PUBLISHED_BATCH)
        return [list(range(i, min(i + _PUBLISHED_BATCH, len(lengths)))) for i in starts]


KIND = Trajectory
