"""Which picture a document of lmms-eval shows: a file beside its per-sample files, which mostly do not say it.

Lines of {task, doc_id, picture}: a hash of the pixels, so that documents which bring the same picture along are known as
one cluster, whoever answered them: one model's file serves for the comparison with any other.
"""

from collections.abc import Mapping, Sequence

from ...store.errors import InputError
from ...store.facts import read_lines
from ...store.files import exists, write_lines

_MARK = "picture"


def check_file(path: str) -> None:
    """See that a file of clusters may be written there, before anything is answered.

    Raises:
        InputError: something else is there.
    """
    if exists(path):
        _read(path)


def write_clusters(path: str, pictures: Mapping[tuple[str, int], str]) -> None:
    """Add pictures by task and document to what the file says, and write it whole. Raises: as `check_file`."""
    if not pictures:
        return
    known = (_read(path) if exists(path) else {}) | dict(pictures)
    rows = [{"task": task, "doc_id": number, _MARK: known[task, number]} for task, number in sorted(known)]
    write_lines(path, rows)


def read_clusters(paths: Sequence[str], task: str) -> dict[int, str]:
    """Return the pictures of a task's documents.

    Raises:
        InputError: no such file, or it does not fit; two files differ, or none says anything of the task.
    """
    pictures = dict[int, str]()
    for path in paths:
        if not exists(path):
            raise InputError(f"there is no {path!r}.")
        own = {number: picture for (name, number), picture in _read(path).items() if name == task}
        if clash := [n for n, picture in own.items() if pictures.get(n, picture) != picture]:
            raise InputError(f"{path!r} has another picture of document {clash[0]} of {task} than the file before it.")
        pictures |= own
    if paths and not pictures:
        raise InputError(f"{', '.join(map(repr, paths))}: nothing is said there of the documents of {task}.")
    return pictures


def _read(path: str) -> dict[tuple[str, int], str]:
    rows = read_lines(path, "file of clusters", "Name another file.", task=str, doc_id=int, picture=str)
    if not rows:  # not a whole line of it
        raise InputError(f"{path!r} is no file of clusters. Name another file.")
    return {(row["task"], row["doc_id"]): row[_MARK] for row in rows}
