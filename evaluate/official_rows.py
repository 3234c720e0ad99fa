"""Reading official files row by row: what a row lacks is the refusal of that row, what a file lacks ends the reading."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..pool.json_source import named_twice
from ..pool.json_stream import iter_records
from ..pool.refusals import IMAGE, RefusedError
from ..store.errors import InputError
from ..store.files import exists, join, look_at, read_bytes
from ..store.reading import wrong

# of a file that is read whole: VQAv2's annotations have some 400 MB
_MOST = 1 << 30
# what stands in an answer's place where only the benchmark's server knows it
HIDDEN = "(hidden)"
Row = dict[str, Any]


def need(folder: str, *names: str) -> list[str]:
    """Return the paths of files that must be there.

    Raises:
        InputError: names all those that are not.
    """
    missing = [n for n in names if not exists(join(folder, n))]
    if missing:
        raise InputError(f"{folder!r} lacks {', '.join(missing)}: put the official files there, under their own names.")
    return [join(folder, n) for n in names]


def first_there(folder: str, *names: str) -> str | None:
    """Return the path of the first of these files that is there; None without any."""
    return next((join(folder, n) for n in names if exists(join(folder, n))), None)


def whole(path: str, kind: type[Any]) -> Any:
    """Return what a JSON file holds.

    An object in it that names a key twice is refused by `sound`.

    Raises:
        InputError: no such file, too large, no JSON, or another kind of value; the file's own object names a key twice.
    """
    size = look_at(path).size or 0
    if size > _MOST:
        raise InputError(f"{path!r} has {size:,} bytes; it is read whole, up to {_MOST:,}.")
    try:
        value = json.loads(read_bytes(path), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path!r} is not JSON: {wrong(error)}.") from error
    if isinstance(value, _Twice):
        raise InputError(f"{path!r} names the key {value.key[:60]!r} twice: which of the two was meant? Leave one.")
    if not isinstance(value, kind):
        raise InputError(f"{path!r} should hold a JSON {'object' if kind is dict else 'array'}.")
    return value


class _Twice(dict[str, Any]):
    """An object that names a key twice."""

    key = ""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    twice, seen = _Twice(value), set[str]()
    twice.key = next(k for k, _ in pairs if k in seen or seen.add(k))
    return twice


def sound(value: Any, where: str = "") -> Any:
    """Return a value of a file that was read whole; `where` it stands is put in front of a refusal.

    Raises:
        RefusedError: an object in it names a key twice.
    """
    if isinstance(value, _Twice):
        error = named_twice(value.key)
        raise RefusedError(error.reason, f"{where}: {error}") if where else error
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            sound(inner, where)
    return value


def lines(path: str) -> Iterator[Any]:
    """Yield the objects of a file of JSON lines (or of an array); a `RefusedError` stands for a line that is none."""
    yield from iter_records(path)


def each(path: str, rows: Iterable[Any], make: Callable[[Row], Row | RefusedError]) -> Iterator[Row | RefusedError]:
    """Yield what `make` makes of each row; what it refuses comes as the refusal, with the file and the row's number."""
    name = path.rsplit("/", 1)[-1]
    for number, row in enumerate(rows, 1):
        try:
            if isinstance(row, RefusedError):
                raise row
            if not isinstance(row, dict):
                raise RefusedError("not_an_object", f"it is {row!r:.60}")
            yield make(sound(row))
        except RefusedError as error:
            yield RefusedError(error.reason, f"{name}, row {number}: {error}")


def text_of(row: Row, key: str) -> str:
    """Return a row's text (a number counts as one).

    Raises:
        RefusedError: it has none.
    """
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or not str(value).strip():
        raise RefusedError("unscorable", f"{key} is {value!r:.60}")
    return str(value)


class Ids:
    """Question ids, or what stands for them, that were seen, so that none is asked twice."""

    def __init__(self) -> None:
        self._seen = set[str]()

    def new(self, name: str, what: str = "question_id") -> str:
        """Return an id; `what` it is, to people.

        Raises:
            RefusedError: it was there before.
        """
        if name in self._seen:
            raise RefusedError("duplicate", f"{what} {name} is there twice")
        self._seen.add(name)
        return name


def question(text: str, answer: str, image: str | None, **extra: Any) -> Row:
    """Return a LLaVA record of one question; `extra` has `id`, `source`, `task` and the benchmark's own fields."""
    asked = f"{IMAGE}\n{text}" if image else text
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
    return extra | ({"image": image} if image else {}) | {"conversations": turns}
