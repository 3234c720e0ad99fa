"""Finding selectors: every file of `methods/`, and of the folders that `VINNOW_METHODS` lists (as PATH does).

A selector file ends in `SELECTOR = ItsClass`; files whose name begins with `_` are left alone.
"""

import importlib
import importlib.util
import os
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from ..store.errors import InputError, suggest
from ..store.files import digest
from ..store.names import is_name
from .protocol import MEANINGS, ScoreMeans, Selector

HERE = Path(__file__).parent / "methods"
VARIABLE = "VINNOW_METHODS"
_PARTS = ("name", "needs", "seeded", "Config", "score", "pick")


def names() -> list[str]:
    """List the selectors' names."""
    return sorted(_found(os.environ.get(VARIABLE, "")))


def make(name: str, config: dict[str, Any] | None = None) -> Selector:
    """Build a selector from plain config values.

    Raises:
        InputError: unknown selector or config field (names the nearest one); a selector file does not fit.
    """
    found = _found(os.environ.get(VARIABLE, ""))
    if name not in found:
        raise InputError(f"unknown selector {name!r}{suggest(name, found)}")
    kind = found[name]
    return kind(kind.Config.parse(config or {}, f"selector {name}"))


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
    found = []
    for name in names():
        kind = _found(os.environ.get(VARIABLE, ""))[name]
        about = " ".join((sys.modules[kind.__module__].__doc__ or "").split("\n\n")[0].split())
        means = getattr(kind, "score_means", "order")
        found.append(Facts(name, list(kind.needs), means, about, list(kind.Config.model_fields)))
    return found


def score_means(selector: Selector) -> ScoreMeans:
    """Return how a selector's scores are to be read; one that does not say promises no more than an order of picking."""
    return getattr(selector, "score_means", "order")


def source_digest(selector: Selector) -> str:
    """Digest the files of a selector's class and of its bases: edited code must not meet scores of the old one."""
    modules = dict.fromkeys(k.__module__ for k in type(selector).__mro__)
    files = [sys.modules[m].__file__ for m in modules if m.split(".")[0] not in sys.stdlib_module_names]
    return digest(*(Path(f).read_bytes() for f in files if f is not None))


@cache
def _found(extra: str) -> dict[str, type[Selector]]:
    package = __name__.rsplit(".", 1)[0]
    by_name: dict[str, tuple[type[Selector], Path]] = {}
    files = [(f, f"{package}.methods.{f.stem}") for f in _files(HERE)]
    for folder in filter(None, extra.split(os.pathsep)):
        if not Path(folder).is_dir():
            raise InputError(f"{VARIABLE} lists {folder!r}, which is no folder.")
        files += [(f, "") for f in _files(Path(folder))]
    for file, module in files:
        kind = _selector_of(importlib.import_module(module) if module else _load(file), file)
        if kind.name in by_name:
            raise InputError(f"two selectors are called {kind.name!r}: {by_name[kind.name][1]} and {file}.")
        by_name[kind.name] = kind, file
    return {name: kind for name, (kind, _) in by_name.items()}


def _files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.glob("*.py") if not f.name.startswith("_"))


def _load(file: Path) -> ModuleType:
    # named by the whole path (folders may share file names), registered so that its classes can be pickled
    name = f"vinnow_method_{file.stem}_{digest(str(file.resolve()))}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _selector_of(module: ModuleType, file: Path) -> type[Selector]:
    kind = getattr(module, "SELECTOR", None)
    if kind is None:
        raise InputError(f"{file}: a selector file ends in `SELECTOR = ItsClass`; name helpers with a leading _.")
    lacking = [n for n in _PARTS if not hasattr(kind, n)]
    if lacking:
        raise InputError(f"{file}: {kind.__name__} lacks {', '.join(lacking)} (see select/protocol.py).")
    # the name becomes part of file names
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", kind.name) or not is_name(kind.name):
        raise InputError(f"{file}: a selector's name is of a-z, 0-9, - and _, not {kind.name!r}.")
    if (means := getattr(kind, "score_means", "order")) not in MEANINGS:
        raise InputError(f"{file}: score_means is one of {', '.join(MEANINGS)}, not {means!r}.")
    return kind
