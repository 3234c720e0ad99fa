"""Finding what a folder of one-file things holds: the package's own folder, and those that a variable lists (as PATH does).

The one place that imports by a name found on disk. Files whose name begins with `_` are left alone.
"""

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import InputError
from .files import digest
from .names import is_name


def modules_of(package: str, folder: Path, variable: str) -> Iterator[tuple[ModuleType, Path]]:
    """Yield each file's module: of `folder`, which is `package`, then of the folders in the environment's `variable`.

    Raises:
        InputError: the variable lists what is no folder.
    """
    for file in _files(folder):
        yield importlib.import_module(f"{package}.{file.stem}"), file
    for listed in filter(None, os.environ.get(variable, "").split(os.pathsep)):
        if not Path(listed).is_dir():
            raise InputError(f"{variable} lists {listed!r}, which is no folder.")
        for file in _files(Path(listed)):
            yield _load(file), file


def classes_of(
    modules: Iterator[tuple[ModuleType, Path]], mark: str, what: str, check: Callable[[Any, Path], None]
) -> dict[str, Any]:
    """Return what each module holds under the name `mark`, one or a tuple, by its `name`; `check` says whether it fits.

    Raises:
        InputError: a file holds none, one that does not fit, or one that is called like another.
    """
    by_name: dict[str, tuple[Any, Path]] = {}
    for module, file in modules:
        held = getattr(module, mark, None)
        if held is None:
            raise InputError(f"{file}: a {what} file ends in `{mark} = ItsClass`; name helpers with a leading _.")
        for kind in held if isinstance(held, tuple) else (held,):
            check(kind, file)
            # the name becomes part of file names
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", kind.name) or not is_name(kind.name):
                raise InputError(f"{file}: a {what}'s name is of a-z, 0-9, - and _, not {kind.name!r}.")
            if kind.name in by_name:
                both = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
                raise InputError(f"two {both} are called {kind.name!r}: {by_name[kind.name][1]} and {file}.")
            by_name[kind.name] = kind, file
    return {name: kind for name, (kind, _) in by_name.items()}


def refuse_lacking(kind: Any, members: tuple[str, ...], file: Path, page: str) -> None:
    """Refuse a class without one of `parts`, or that leaves one abstract; `page` says what they are.

    Raises:
        InputError: names what it lacks.
    """
    abstract = getattr(kind, "__abstractmethods__", ())
    lacking = [n for n in members if not hasattr(kind, n) or n in abstract]
    if lacking:
        raise InputError(f"{file}: {kind.__name__} lacks {', '.join(lacking)} (see {page}).")


def _files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.glob("*.py") if not f.name.startswith("_"))


def _load(file: Path) -> ModuleType:
    # named by the whole path (folders may share file names), registered so that its classes can be pickled
    name = f"vinnow_file_{file.stem}_{digest(str(file.resolve()))}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
