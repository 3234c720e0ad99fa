"""vinnow: choose which visual-instruction data is worth training on.

The Python API, for notebooks (docs/python.md): importing vinnow imports nothing else; each name is found when it is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pipelines.api import (
        ActorResources,
        Features,
        InputError,
        OpenPool,
        Picks,
        VinnowError,
        ask,
        compare,
        features,
        fine_tune,
        ingest,
        open_features,
        open_pool,
        pick,
        score,
        tiny_model,
    )

__version__ = "0.1.0"
__all__ = [
    "ActorResources",
    "Features",
    "InputError",
    "OpenPool",
    "Picks",
    "VinnowError",
    "ask",
    "compare",
    "features",
    "fine_tune",
    "ingest",
    "open_features",
    "open_pool",
    "pick",
    "score",
    "tiny_model",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'vinnow' has no attribute {name!r}; it offers {', '.join(__all__)}")
    from .pipelines import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
