"""Finding kinds of feature: every file of `kinds/`, and of the folders that `VINNOW_KINDS` lists (as PATH does).

A kind's file ends in `KIND = ItsClass` (see `kind.py`). On a cluster every node needs the listed folders at the same place.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

from ..store.errors import InputError, suggest
from ..store.reading import shown
from ..store.scan import classes_of, modules_of, refuse_lacking

HERE = Path(__file__).parent / "kinds"
VARIABLE = "VINNOW_KINDS"
_PARTS = ("name", "Config", "dim", "recipe", "tap", "cost")


class UnknownKindError(InputError):
    """No file holds a kind of this name."""


def names() -> list[str]:
    """List the kinds' names."""
    return sorted(_found(os.environ.get(VARIABLE, "")))


def find(name: Any) -> type[Any]:
    """Return a kind's class (a subclass of `kind.Kind`).

    Raises:
        UnknownKindError: there is none of this name; names the nearest one.
        InputError: a kind's file does not fit.
    """
    found = _found(os.environ.get(VARIABLE, ""))
    if not isinstance(name, str) or name not in found:
        near = suggest(name, found) if isinstance(name, str) else suggest("", found)
        raise UnknownKindError(f"unknown kind of feature {shown(name)}{near}")
    return found[name]


@cache
def _found(extra: str) -> dict[str, type[Any]]:
    package = __name__.rsplit(".", 1)[0]
    return classes_of(modules_of(f"{package}.kinds", HERE, VARIABLE), "KIND", "kind", _check)


def _check(kind: type[Any], file: Path) -> None:
    refuse_lacking(kind, _PARTS, file, "actors/kind.py")
    fields = getattr(kind.Config, "model_fields", {})
    if "token_budget" not in fields or fields["kind"].default != kind.name:
        raise InputError(
            f"{file}: {kind.__name__}.Config is a FeatureConfig with `kind: Literal[{kind.name!r}] = {kind.name!r}`."
        )
