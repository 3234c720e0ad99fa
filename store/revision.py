"""Which code made a result: the package's version, and a digest of its sources that also knows an edited checkout."""

from functools import lru_cache
from pathlib import Path

from .files import digest

_ROOMS = ("store", "pool", "models", "select", "actors", "train", "evaluate", "pipelines")


@lru_cache(1)
def code_revision() -> str:
    """Return 16 hexadecimal digits of every source file of the package, by name and content."""
    root = Path(__file__).resolve().parents[1]
    pieces: list[bytes | str] = []
    for file in sorted(f for room in _ROOMS for f in (root / room).rglob("*.py")):
        pieces += [str(file.relative_to(root)), file.read_bytes()]
    return digest(*pieces)
