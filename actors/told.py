"""Ray Data's form of an actor, for its errors' sake."""

from typing import Any, ClassVar

from ..store.errors import VinnowError
from .config import FeatureSpec

# what loading weights and processors raises
_AT_START = (VinnowError, OSError, RuntimeError, ValueError, TypeError, LookupError, MemoryError, ImportError)


class Told:
    """What an actor's start raises, its first call raises instead: from a constructor only a text reaches the driver."""

    kind: ClassVar[Any]

    def __init__(self, spec: FeatureSpec) -> None:
        self.error: Exception | None = None
        try:
            self.actor = type(self).kind(spec)
        except _AT_START as error:
            self.error = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Pass a batch on."""
        if self.error is not None:
            raise self.error
        return self.actor(batch)


def told(kind: Any) -> type[Told]:
    """Return such a class around `kind` (made from a `FeatureSpec`), under its name: dashboards and `ps` show that."""
    return type(kind.__name__, (Told,), {"kind": kind})
