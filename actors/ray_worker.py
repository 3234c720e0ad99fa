"""Ray Data's form of a plain worker: batches of one part in and out, what its start raises, and parts that kill it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..store.arrays import Array
from ..store.errors import VinnowError
from ..store.meters import export_to
from ..store.tries import begin, end

# in a row, for the flow alone: how often the processes that computed its part died
DIED = "died"
# what loading weights and processors raises
_AT_START = (VinnowError, OSError, RuntimeError, ValueError, TypeError, LookupError, MemoryError, ImportError)


@dataclass(frozen=True)
class Attempts:
    """Where it is counted how often a part was begun and not ended, and how often that may be."""

    out: str
    product: str
    most: int


class RayWorker:
    """A worker of `kind` as an actor of Ray Data.

    What its start raises, its first call raises instead: from a constructor only a text reaches the driver. Ray starts an
    actor that died, and its task, again without end: a part that was begun too often is an error that names it.
    """

    kind: ClassVar[type[Any]]
    attempts: ClassVar[Attempts]

    def __init__(self, **arguments: Any) -> None:
        from ray.util import metrics

        export_to(metrics)
        self.error: Exception | None = None
        try:
            self.worker = type(self).kind(**arguments)
        except _AT_START as error:
            self.error = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Pass each part of a batch (columns of NumPy) on; return what came of them as such a batch."""
        if self.error is not None:
            raise self.error
        rows = [self._row(dict(zip(batch, map(_plain, values), strict=True))) for values in zip(*batch.values())]
        return {name: _column([row[name] for row in rows]) for name in rows[0]}

    def _row(self, part: dict[str, Any]) -> dict[str, Any]:
        tries, name = self.attempts, part["part"]
        died = part.pop(DIED, 0) + begin(tries.out, tries.product, name, tries.most, part["place"])
        try:
            return self.worker(part) | {DIED: died}
        finally:
            end(tries.out, tries.product, name)


def ray_worker(kind: type[Any], attempts: Attempts) -> type[RayWorker]:
    """Return such a class around `kind`, under its name: dashboards and `ps` show that."""
    return type(kind.__name__, (RayWorker,), {"kind": kind, "attempts": attempts})


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _column(values: list[Any]) -> Array:
    # NumPy's own texts and bytes lose zeros at their ends
    return np.array(values, dtype=object if isinstance(values[0], str | bytes) else None)
