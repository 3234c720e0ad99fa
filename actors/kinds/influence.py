"""Influence: exact inner products of each row's gradient with the mean unit gradients of a target set's tasks."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ..config import FeatureSpec
from ..kind import Held
from ._differentiated import Differentiated

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...models.cost import Cost, RowSize
    from ...models.shape import Shape
    from ...models.taps.gradients import GradientTap


class Influence(Differentiated):
    """One number per task, nothing projected; the norm beside them is the gradient's own."""

    name = "influence"
    aims = True

    class Config(Differentiated.Config):
        """Linears and mode alone."""

        kind: Literal["influence"] = Field("influence", description="This kind: influence.")

    def dim(self, hidden: "Callable[[], int]", tasks: int) -> int:
        """Return the number of tasks."""
        return tasks

    @property
    def projection(self) -> str | None:
        """Products with a few dense columns go at a dense projection's pace."""
        return "rademacher"

    def tap(self, model: Any, spec: FeatureSpec, number: int) -> "GradientTap":
        """Return the tap of the Linears, with the means that were made for this checkpoint."""
        from ...models.projections.targets import Targets
        from ...models.taps.gradients import GradientTap
        from ..means import means_path, read_means
        from ..modes import make_mode

        checkpoint = spec.checkpoints[number]
        path = means_path(spec.out, self.config.name, checkpoint.step)
        means = read_means(path, spec.device, next(model.parameters()).dtype)
        mode = make_mode(model, self.config.which, self.config.mode, checkpoint)
        return GradientTap(model, self.config.which, Targets(means), mode)

    def cost(self, shape: "Shape", row: "RowSize", tasks: int) -> "Cost":
        """Return a forward and a backward pass, per-sample gradients, and a product a task."""
        from ...models.cost import Sketch, gradient_flop

        return gradient_flop(shape, row, self.config.which, Sketch("targets", tasks))

    def memory(self, shape: "Shape", held: Held) -> float:
        """Return a gradient's bytes, and those of the tasks' means at every checkpoint of a pass."""
        from ...models.cost import VALUE_BYTES, elements

        whole = elements(shape.chosen(self.config.which)) * VALUE_BYTES[self.config.precision]
        return super().memory(shape, held) + held.models * held.tasks * whole


KIND = Influence
