"""From a config to its sink. A new projection is one file here and one entry below."""

from .config import ProjectionConfig
from .dense import Concatenate, Rademacher
from .kron import Kron
from .sink import Sink
from .sparse import Sjlt


def make_sink(config: ProjectionConfig, sizes: dict[str, int]) -> Sink:
    """Return the sink of a config; `sizes` are the tapped parameters' element counts, in order."""
    if config.kind == "none":
        return Concatenate(sizes)
    return {"rademacher": Rademacher, "sjlt": Sjlt, "kron": Kron}[config.kind](config)
