"""Finding selectors: every file of `methods/`, and of the folders that `VINNOW_METHODS` lists (as PATH does).

A selector file ends in `SELECTOR = ItsClass`; files whose name begins with `_` are left alone.
"""

import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..store.errors import InputError, suggest
from ..store.files import digest
from ..store.scan import classes_of, modules_of, refuse_lacking
from .needs import Needs
from .protocol import MEANINGS, ScoreMeans, Selector

HERE = Path(__file__).parent / "methods"
VARIABLE = "VINNOW_METHODS"
_MEMBERS = ("name", "needs", "seeded", "Config", "score", "pick")


def names() -> list[str]:
    """List the selectors' names."""
    return sorted(_selectors(os.environ.get(VARIABLE, "")))


def make(name: str, config: dict[str, Any] | None = None, where: str = "") -> Selector:
    """Build a selector from plain config values; `where`: where they stand, for messages.

    Raises:
        InputError: unknown selector or config field (names the nearest one); a selector file does not fit.
    """
    selectors = _selectors(os.environ.get(VARIABLE, ""))
    if name not in selectors:
        raise InputError(f"unknown selector {name!r}{suggest(name, selectors)}")
    kind = selectors[name]
    return kind(kind.Config.parse(config or {}, where or f"selector {name}"))


@dataclass(frozen=True)
class Facts:
    """What a list of selectors says of one: `about` is the first sentence of its file, `fields` those of its config."""

    name: str
    needs: list[str]
    score_means: str
    about: str
    fields: list[str]


def facts() -> list[Facts]:
    """Return the facts of every selector, by name."""
    facts_of_all = []
    for name in names():
        kind = _selectors(os.environ.get(VARIABLE, ""))[name]
        about = " ".join((sys.modules[kind.__module__].__doc__ or "").split("\n\n")[0].split())
        means = getattr(kind, "score_means", "order")
        facts_of_all.append(Facts(name, kind.needs.words(), means, about, list(kind.Config.model_fields)))
    return facts_of_all


def score_means(selector: Selector) -> ScoreMeans:
    """Return how a selector's scores are to be read; one that does not say promises no more than an order of picking."""
    return getattr(selector, "score_means", "order")


def source_digest(selector: Selector) -> str:
    """Digest the files of a selector's class and of its bases: edited code must not meet scores of the old one.

    One that picks by a rule scores by the code of the selector beneath.
    """
    selector = getattr(selector, "base", selector)
    modules = dict.fromkeys(k.__module__ for k in type(selector).__mro__)
    files = [sys.modules[m].__file__ for m in modules if m.split(".")[0] not in sys.stdlib_module_names]
    return digest(*(Path(f).read_bytes() for f in files if f is not None))


@cache
def _selectors(extra: str) -> dict[str, type[Selector]]:
    package = __name__.rsplit(".", 1)[0]
    return classes_of(modules_of(f"{package}.methods", HERE, VARIABLE), "SELECTOR", "selector", _check)


def _check(kind: type[Selector], file: Path) -> None:
    refuse_lacking(kind, _MEMBERS, file, "select/protocol.py")
    if not isinstance(kind.needs, Needs):
        raise InputError(
            f"{file}: needs is a Needs(features=…, targets=…, fields=…) of select/needs.py, not {kind.needs!r}."
        )
    if (means := getattr(kind, "score_means", "order")) not in MEANINGS:
        raise InputError(f"{file}: score_means is one of {', '.join(MEANINGS)}, not {means!r}.")
