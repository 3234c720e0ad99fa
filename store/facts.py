"""JSON that vinnow wrote itself (manifests, reports, logs), read with the kinds of its fields; all else is damage."""

import os
from typing import Any, TypeVar

from .errors import DamagedError, InputError
from .files import read_bytes, read_json
from .reading import as_kind, parse_json, with_fields

T = TypeVar("T")


def read_fields(path: str | os.PathLike[str], what: str, way_out: str, **fields: Any) -> dict[str, Any]:
    """Return a JSON object that has these fields of these kinds (`rows=int`); one whose kind takes None may be missing.

    Raises:
        InputError: there is no such file, or it is no JSON.
        DamagedError: it is no object, or a field is missing or of another kind.
    """
    return with_fields(_value(path, way_out), fields, os.fspath(path), what, way_out)


def read_as(path: str | os.PathLike[str], kind: type[T], what: str, way_out: str) -> T:
    """Return a JSON file's value as a dataclass, or as `dict[str, int]` and the like. Raises: as `read_fields`."""
    return as_kind(_value(path, way_out), kind, os.fspath(path), what, way_out)


def read_lines(path: str | os.PathLike[str], what: str, way_out: str, **fields: Any) -> list[dict[str, Any]]:
    """Return the objects of a log, one a line, with these fields; a last line that is half written is left out.

    Raises:
        DamagedError: a line is no object of these fields; names it.
    """
    rows = []
    for number, line in enumerate(read_bytes(path).split(b"\n")[:-1], 1):
        if line.strip():
            where = f"{os.fspath(path)}, line {number}"
            rows.append(with_fields(_parsed(line, where, way_out), fields, where, what, way_out))
    return rows


def _value(path: str | os.PathLike[str], way_out: str) -> Any:
    try:
        return read_json(path)
    except InputError as error:
        raise type(error)(f"{error} {way_out}".rstrip()) from error


def _parsed(line: bytes, where: str, way_out: str) -> Any:
    try:
        return parse_json(line, where, way_out)
    except InputError as error:
        raise DamagedError(str(error)) from error
