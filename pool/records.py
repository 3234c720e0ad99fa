"""A record of the pool, as rooms hand it to each other."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Record:
    """One POOL row. `conversations` alternate human/gpt; `images` are relative to the image root.

    `image_hash`: `difference_hash` of the first picture as ingest saw it; None where it looked at none.
    """

    sample_id: int
    source: str
    task: str
    images: tuple[str, ...]
    conversations: list[dict[str, str]]
    extra: dict[str, Any] = field(default_factory=dict)
    image_hash: int | None = None

    def seen(self, image: str) -> int | None:
        """Return the hash that ingest took of a picture; None where it took none."""
        return self.image_hash if self.images and image == self.images[0] else None

    @property
    def system(self) -> str:
        """The record's own system prompt, "" without one; it takes the place of the template's."""
        prompt = self.extra.get("system")
        return prompt if isinstance(prompt, str) else ""


def image_value(images: tuple[str, ...]) -> str | list[str] | None:
    """Return what LLaVA's key `image` holds: a path, a list of several, or null; content ids are made from it."""
    if len(images) > 1:
        return list(images)
    return images[0] if images else None
