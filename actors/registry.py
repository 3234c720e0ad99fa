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
_MEMBERS = ("name", "Config", "dim", "recipe", "tap", "cost")


class UnknownKindError(InputError):
    """No file holds a kind of this name."""


def names() -> list[str]:
    """List the kinds' names."""
    return sorted(_classes(os.environ.get(VARIABLE, "")))


def find(name: Any) -> type[Any]:
    """Return a kind's class (a subclass of `kind.Kind`).

    Raises:
        UnknownKindError: there is none of this name; names the nearest one.
        InputError: a kind's file does not fit.
    """
    kinds = _classes(os.environ.get(VARIABLE, ""))
    if not isinstance(name, str) or name not in kinds:
        near = suggest(name, kinds) if isinstance(name, str) else suggest("", kinds)
        raise UnknownKindError(f"unknown kind of feature {shown(name)}{near}")
    return kinds[name]


@cache
def _classes(extra: str) -> dict[str, type[Any]]:
    package = __name__.rsplit(".", 1)[0]
    return classes_of(modules_of(f"{package}.kinds", HERE, VARIABLE), "KIND", "kind", _check)


def _check(kind: type[Any], file: Path) -> None:
    refuse_lacking(kind, _MEMBERS, file, "actors/kind.py")
    fields = getattr(kind.Config, "model_fields", {})
    if "token_budget" not in fields or fields["kind"].default != kind.name:
        raise InputError(
            f"{file}: {kind.__name__}.Config is a FeatureConfig with `kind: Literal[{kind.name!r}] = {kind.name!r}`."
        )
