"""Finding selectors: every file of `methods/` that names a `SELECTOR`, and of the folders in `VINNOW_METHODS`."""

import importlib
import importlib.util
import os
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from ..store.errors import InputError, suggest
from .protocol import Selector

HERE = Path(__file__).parent / "methods"


def names() -> list[str]:
    """List the selectors' names."""
    return sorted(_found(os.environ.get("VINNOW_METHODS", "")))


def make(name: str, config: dict[str, Any] | None = None) -> Selector:
    """Build a selector from plain config values.

    Raises:
        InputError: unknown selector or config field; names the nearest one.
    """
    found = _found(os.environ.get("VINNOW_METHODS", ""))
    if name not in found:
        raise InputError(f"unknown selector {name!r}{suggest(name, found)}")
    kind = found[name]
    return kind(kind.Config.parse(config or {}, f"selector {name}"))


@cache
def _found(extra: str) -> dict[str, type[Selector]]:
    package = __name__.rsplit(".", 1)[0]
    modules = [importlib.import_module(f"{package}.methods.{f.stem}") for f in sorted(HERE.glob("*.py"))]
    modules += [_load(f) for folder in extra.split(os.pathsep) if folder for f in sorted(Path(folder).glob("*.py"))]
    by_name: dict[str, type[Selector]] = {}
    for module in modules:
        kind = getattr(module, "SELECTOR", None)
        if kind is None:
            continue
        if kind.name in by_name:
            raise InputError(f"two selectors are called {kind.name!r}: {by_name[kind.name].__module__}, {kind.__module__}.")
        by_name[kind.name] = kind
    return by_name


def _load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"vinnow_method_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
