"""Gradient: each row's gradient of chosen Linears, projected to a fixed width (LESS, TRAK)."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ...models.projections.config import ProjectionConfig
from ...store.arrays import Array
from ..config import FeatureSpec
from ._differentiated import Differentiated

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...models.cost import Cost, RowSize
    from ...models.shape import Shape
    from ...models.taps.gradients import GradientTap


class Gradient(Differentiated):
    """`projection.dim` numbers a row, of length 1 unless `unit_rows` is off; zeros where nothing reaches the Linears."""

    name = "gradient"
    of_targets = True

    class Config(Differentiated.Config):
        """How gradients are projected and stored."""

        stores: ClassVar[tuple[str, ...]] = ("float32", "float16", "int8", "bit1")

        kind: Literal["gradient"] = Field("gradient", description="This kind: gradient.")
        projection: ProjectionConfig = Field(
            ProjectionConfig(), description="To which width the gradient is projected, and how."
        )
        unit_rows: bool = Field(True, description="Rows are scaled to length 1 before they are stored.")

        @model_validator(mode="after")
        def _fits(self) -> Self:
            if self.projection.kind == "none":
                raise ValueError(
                    "projection 'none' is for tests: a stored gradient needs a projection with a fixed dim"
                )
            if self.projection.kind == "kron" and self.mode != "sgd":
                raise ValueError(
                    f"projection 'kron' never forms the gradient, which mode {self.mode!r} needs: take sjlt"
                )
            if self.dtype == "float16" and not self.unit_rows:
                raise ValueError("raw gradients underflow in float16; keep unit_rows, or store float32")
            return self

    def dim(self, hidden: "Callable[[], int]", tasks: int) -> int:
        """Return the projection's width."""
        return self.config.projection.dim

    def recipe(self) -> dict[str, Any]:
        """Return Linears, mode, projection, and whether rows are scaled."""
        facts = {"projection": self.config.projection.facts(), "unit_rows": self.config.unit_rows}
        return super().recipe() | facts

    @property
    def projection(self) -> str | None:
        """Return the projection's kind."""
        return self.config.projection.kind

    def tap(self, model: Any, spec: FeatureSpec, number: int) -> "GradientTap":
        """Return the tap of the Linears, with Adam's moments at this checkpoint where the mode reads them."""
        from ...models.taps.gradients import GradientTap
        from ..modes import make_mode

        config = self.config
        mode = make_mode(model, config.which, config.mode, spec.checkpoints[number])
        return GradientTap(model, config.which, config.projection, mode)

    def cost(self, shape: "Shape", row: "RowSize", tasks: int) -> "Cost":
        """Return a forward and a backward pass, per-sample gradients, and the projection."""
        from ...models.cost import Sketch, gradient_flop

        sketch = self.config.projection
        return gradient_flop(shape, row, self.config.which, Sketch(sketch.kind, sketch.dim, sketch.nonzeros))

    def finished(self, vec_ND: Array, norm_N: Array) -> Array:
        """Return rows of length 1, by the exact norm where the tap knows it; zeros stay."""
        if not self.config.unit_rows:
            return vec_ND
        return np.divide(vec_ND, norm_N[:, None], out=np.zeros_like(vec_ND), where=norm_N[:, None] > 0)


KIND = Gradient
