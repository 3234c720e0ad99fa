"""What ends a training for good: the same numbers would end another attempt in the same way, so there is none.

Ray Train starts a failed worker again. What a worker left here is raised by the next attempt before it loads anything, and
by the driver in place of Ray's wrapping.
"""

from contextlib import suppress

from ..store.errors import InputError, NotFiniteError, VinnowError, WriteError, one_line, plain, plain_cause
from ..store.facts import read_fields
from ..store.files import exists, join, write_json
from ..store.folders import remove
from ..store.machine import refusal
from ..store.traces import leave_trace

FILE = "stopped.json"


class TrainingFailedError(VinnowError):
    """A training failed in a way that another attempt may get past."""


class OutOfMemoryError(VinnowError):
    """A worker's GPU memory ran out; the message names the knobs that are left."""


_KINDS: dict[str, type[VinnowError]] = {
    k.__name__: k for k in (OutOfMemoryError, NotFiniteError, WriteError, InputError)
}


def leave(out: str, error: VinnowError) -> None:
    """Leave an error for the other attempts and the driver, the first one of all workers."""
    path = join(out, FILE)
    if not exists(path):
        kind = next(name for name, known in _KINDS.items() if isinstance(error, known))
        with suppress(WriteError):  # where there is no room even for this, the next attempt finds so by itself
            write_json(path, {"kind": kind, "message": plain(str(error))})


def raise_left(out: str) -> None:
    """Raise what an attempt of this training has left, if any.

    Raises:
        InputError, NotFiniteError, WriteError, OutOfMemoryError: what ended that attempt.
    """
    path = join(out, FILE)
    if exists(path):
        note = read_fields(path, "note of what ended a training", "Delete it.", kind=str, message=str)
        raise _KINDS.get(note["kind"], InputError)(note["message"])


def forget(out: str) -> None:
    """Begin anew: a rerun may find other rows or another GPU."""
    remove(join(out, FILE))


def failed(out: str, error: BaseException) -> VinnowError:
    """Return what to raise for a training that failed: what a worker left, else one line; its trace goes to a file."""
    kept = leave_trace(out, error)
    try:
        raise_left(out)
    except VinnowError as left:
        return left
    said = refusal(error) if plain_cause(error) is None else None
    return TrainingFailedError(f"training in {out} failed: {said or one_line(error)} {kept}")
