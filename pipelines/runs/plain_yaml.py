"""YAML as a run's files and `--set` may hold it: plain values, each field once, of a size that a person can have meant."""

import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from ...store.errors import InputError, suggest
from ...store.files import read_bytes
from ...store.reading import FOREIGN, check_path, shown, wrong

# aliases may say much in few bytes; nobody's config has so many values, and an error's text would have them all
_MOST = 100_000


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which lets a field stand twice and takes the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name in seen and name is not None:
                said = f"{shown(key.value)} stands there twice"
                raise yaml.constructor.ConstructorError(problem=said, problem_mark=key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def parse_yaml(text: bytes | str, where: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        InputError: it is none, or of an unreadable kind, a field stands twice, or its aliases make it endless.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-16" if text[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        value = _Loader(text).get_single_data()
        size = _size(value, {})
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InputError(f"{where} is not YAML: {line}{' '.join(str(error.problem).split())}.") from error
    except (*FOREIGN, yaml.YAMLError) as error:  # of its own it lets dates, numbers and depth go wrong
        raise InputError(f"{where} is not YAML: {wrong(error)}.") from error
    if size > _MOST:
        raise InputError(f"{where}: its aliases (&name, *name) stand for {size:,} values; {_MOST:,} are the most.")
    return value


def _size(value: Any, known: dict[int, int]) -> int:
    """Return how many values there are if each alias is written out; by identity, so that it costs what the text costs."""
    if not isinstance(value, (dict, list, tuple, set)):
        return 1
    if id(value) in known:
        if not known[id(value)]:
            raise ValueError("an alias stands for something that it is in itself")
        return known[id(value)]
    known[id(value)] = 0
    inside = value.values() if isinstance(value, dict) else value
    known[id(value)] = 1 + sum(_size(v, known) for v in inside)
    return known[id(value)]


def read_yaml(path: str, room: str = "pipelines", what: str = "run config") -> dict[str, Any]:
    """Read a YAML mapping; `NAME` or `recipes/NAME.yaml` is a recipe of the package (`pipelines/`, or another room)."""
    folder = Path(__file__).parents[2] / room / "recipes"
    file = Path(check_path(path))
    if not os.path.isfile(file) and "/" not in path and not path.endswith((".yaml", ".yml")):
        file = folder / f"{path}.yaml"
    if not os.path.lexists(file) and file.parent == Path("recipes") and (folder / file.name).is_file():
        file = folder / file.name
    if not os.path.lexists(file):
        raise InputError(f"no {what} {path!r}{suggest(path, [p.stem for p in folder.glob('*.yaml')])}")
    values = parse_yaml(read_bytes(file), repr(path))
    if not isinstance(values, dict):
        raise InputError(f"{path!r} must hold a mapping of fields, not {shown(values)}.")
    odd = [k for k in values if not isinstance(k, str)]
    if odd:
        raise InputError(f"{path!r}: a field is named {shown(odd[0])}, which is no text.")
    return values


def apply_set(values: dict[str, Any], entry: str) -> None:
    """Apply one `a.b=c`; list items by number (`selectors.0.name=less`); the value is read as YAML."""
    path, sep, text = entry.partition("=")
    *parents, last = path.split(".")
    if not sep or not all([*parents, last]):
        raise InputError(f"--set wants a.b=c, not {shown(entry)}.")
    entry = path if len(path) < 80 else shown(path)
    value = parse_yaml(text, f"--set {entry}")
    here: Any = values
    for name in parents:
        here = here[_index(here, name, entry)] if isinstance(here, list) else here.setdefault(name, {})
        if not isinstance(here, (dict, list)):
            raise InputError(f"--set {entry}: {shown(name)} is a plain value, nothing can be set inside it.")
    here[_index(here, last, entry) if isinstance(here, list) else last] = value


def settings(sets: list[str] | None) -> dict[str, Any]:
    """Return a list of `a.b=c` as a nested mapping."""
    values: dict[str, Any] = {}
    for entry in sets or []:
        apply_set(values, entry)
    return values


def _index(here: list[Any], name: str, entry: str) -> int:
    if not name.isascii() or not name.isdigit() or len(name) > 9 or int(name) >= len(here):
        raise InputError(f"--set {entry}: {shown(name)} is no place in a list of {len(here)}.")
    return int(name)
