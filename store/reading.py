"""What reading somebody else's file raises, as one line of ours: which file, what it should be, what is wrong.

A file may be cut off, of another encoding, nested a thousand deep, a folder; its fields may be of any kind. Whoever knows
the file reads it inside `reading`, and nothing else: an error of our own code must not pass for the file's.
"""

import json
import os
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from .errors import DamagedError, InputError, KeyTwiceError, VinnowError

T = TypeVar("T")
# what parsing raises, by whichever library: missing bytes, another kind of value, no such field, too deep, too large
FOREIGN = (OSError, pa.ArrowException, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError)
FOREIGN += (RecursionError, MemoryError)
# file systems' own limits, in bytes
_NAME, _PATH = 255, 4095
_JSON = {type(None): "null", list: "a list", str: "a text", bool: "a truth value", int: "a number", float: "a number"}
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxlong, _SHORT.maxother = 3, 80, 40, 80
_SHORT.maxdict = _SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = 4


@contextmanager
def reading(
    path: str | os.PathLike[str],
    what: str,
    way_out: str = "",
    also: tuple[type[Exception], ...] = (),
    kind: type[InputError] = InputError,
) -> Iterator[None]:
    """Turn what parsing `path`, which should be `what` ("a JSON object"), raises into one line; `also`: a library's own.

    Raises:
        InputError: (or `kind`) names the file, what is wrong, and the way out. Errors of ours pass.
    """
    try:
        yield
    except VinnowError:
        raise
    except (*FOREIGN, *also) as error:
        raise kind(f"{os.fspath(path)!r} cannot be read as {what}: {wrong(error)}. {way_out}".rstrip()) from error


def wrong(error: BaseException) -> str:
    """Return what an error of parsing says, in one line, without its full stop."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8 ({error.reason})"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError) or "is a directory" in str(error):
        return "it is a folder"
    if isinstance(error, PermissionError):
        return "it may not be read by this user"
    if isinstance(error, KeyError):
        return f"it has no {shown(error.args[0]) if error.args else 'such field'}"
    if "integer string conversion" in str(error):
        return "a number in it has more than 4,300 digits"
    said = " ".join(str(error).split()).rstrip(".")
    # the words of these say what was done with a value, not what it is
    named = isinstance(error, (TypeError, AttributeError, MemoryError, IndexError)) or not said
    return _cut(f"{type(error).__name__}: {said}".removesuffix(": ") if named else said)


def shown(value: Any) -> str:
    """Return a value of a foreign file as a message shows it: never long, whatever it is."""
    try:
        return _cut(" ".join(_SHORT.repr(value).split()))
    except FOREIGN:  # its own text is too long, or too deep
        return f"something of type {type(value).__name__}"


def check_path(path: str | os.PathLike[str]) -> str:
    """Return a path as text, seen to be one that a file system takes.

    Raises:
        InputError: it is empty, too long, or holds what no path can.
    """
    text = os.fspath(path)
    if not text.strip():  # it would be the current folder, and a file in it one of the root
        raise InputError("a path is empty. Was a variable not set?")
    if "\0" in text:
        raise InputError(f"{shown(text)} is no path: it holds a NUL character.")
    try:
        data = (text if "://" in text else os.path.abspath(text)).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{shown(text)} is no path that can be used here: it is not UTF-8. Rename it.") from error
    if len(data) > _PATH or max(map(len, data.split(b"/"))) > _NAME:
        raise InputError(f"{shown(text)} is no path: it is longer than a file system takes.")
    return text


def refuse_irregular(path: str) -> None:
    """Refuse a local path at which something else than a file is: a FIFO would be waited for without end.

    Raises:
        InputError: says what it is.
    """
    if os.path.isfile(path) or not os.path.lexists(path):
        return
    if os.path.islink(path) and not os.path.exists(path):
        raise InputError(f"{path!r} is a symbolic link that leads nowhere, or in a circle.")
    what = "a folder" if os.path.isdir(path) else "no regular file (a FIFO, a socket or a device)"
    raise InputError(f"{path!r} is {what}, and a file should be there.")


def parse_json(data: bytes | str, where: str, way_out: str = "", *, once: bool = False) -> Any:
    """Return the value of a JSON text; `once`: an object at any depth that names a key twice is refused.

    Raises:
        KeyTwiceError: which of the two was meant?
        InputError: it is none, or holds what cannot be read; `where` is named.
    """

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(value := dict(members)) < len(members):
            key = Counter(name for name, _ in members).most_common(1)[0][0]
            raise KeyTwiceError(f"{where!r} names {shown(key)} twice in one object. {way_out}".rstrip(), key)
        return value

    try:
        return json.loads(data, object_pairs_hook=pairs if once else None)
    except KeyTwiceError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where!r} is not JSON: {wrong(error)}. {way_out}".rstrip()) from error


def as_kind(value: Any, kind: type[T] | Any, where: str, what: str, way_out: str = "", field: str = "") -> T:
    """Return a plain value as `kind`: a dataclass, `dict[str, int]`, whatever pydantic builds; `field`: where it stands.

    Raises:
        DamagedError: fields are missing or of another kind; names the first.
    """
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        fault = _fault(error.errors(include_url=False)[0], field)
        raise DamagedError(f"{where!r} is no {what}: {fault}. {way_out}".rstrip()) from error
    except RecursionError as error:
        raise DamagedError(f"{where!r} is no {what}: {wrong(error)}. {way_out}".rstrip()) from error


def with_fields(value: Any, fields: Mapping[str, Any], where: str, what: str, way_out: str = "") -> dict[str, Any]:
    """Return a JSON object with these fields of these kinds; one whose kind takes None may be missing; others stay as is.

    Raises:
        DamagedError: it is no object, or a field is missing or of another kind.
    """
    if not isinstance(value, dict):
        held = f"it holds {_JSON.get(type(value), type(value).__name__)}, not an object with fields"
        raise DamagedError(f"{where!r} is no {what}: {held}. {way_out}".rstrip())
    checked = {n: as_kind(value.get(n), kind, where, what, way_out, n) for n, kind in fields.items()}
    return value | checked


def _fault(fault: Any, field: str) -> str:
    field_path, received = ".".join([*([field] if field else []), *map(str, fault["loc"])]), fault["input"]
    if fault["type"] == "missing" or (field_path == field and received is None):
        return f"it has no {field_path!r}"
    said = str(fault["msg"]).removeprefix("Input ")
    if fault["type"].startswith(("dataclass", "dict", "model")):
        said = "should be an object with fields"
    return f"{f'{field_path!r} ' if field_path else 'it '}{said} (found {shown(received)})"


@lru_cache(64)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _cut(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[: most - 2]} …"
