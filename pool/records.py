"""A record of the pool, as rooms hand it to each other."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Record:
    """One POOL row. `conversations` alternate human/gpt; `image` is relative to the image root or None."""

    sample_id: int
    source: str
    task: str
    image: str | None
    conversations: list[dict[str, str]]
    extra: dict[str, Any] = field(default_factory=dict)
