"""What a recipe leaves open: values that say FILL IN, refused by their place until somebody has."""

from collections.abc import Iterator
from typing import Any

from ..store.errors import InputError

BLANK = "FILL IN"


def refuse_blanks(values: Any) -> None:
    """Return if a run's plain values hold no blank any more.

    Raises:
        InputError: names each, what belongs there, and how to say it.
    """
    open_places = list(_blanks(values, ""))
    if open_places:
        listed = "\n".join(f"  {place}: {what}" for place, what in open_places)
        raise InputError(
            f"{len(open_places)} places are still to be filled in:\n{listed}\n"
            f"Say each with --set {open_places[0][0]}=…, or copy the recipe (pipelines/recipes/ of the package) to a YAML "
            "of your own and write it there."
        )


def _blanks(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and value.startswith(BLANK):
        yield place, value.removeprefix(BLANK).lstrip(": ") or "a path"
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, below in inside:
        yield from _blanks(below, f"{place}.{name}" if place else str(name))
