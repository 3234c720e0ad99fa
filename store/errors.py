"""Errors that a person can act on: what, where, and the way out.

`InputError` (a `ValueError`) is the user's mistake; the command line prints it without a traceback. Everything
else that escapes is ours.
"""

import difflib
from collections.abc import Iterable


class VinnowError(Exception):
    """Base of all errors raised on purpose."""


class InputError(VinnowError, ValueError):
    """Something that the user gave is wrong, missing or does not fit."""


class KeyMismatchError(InputError):
    """Features on disk were made under another key than the one asked for."""


class MissingRowsError(InputError):
    """A table holds fewer rows than its reader needs ("100 of 300")."""


class DuplicateRowsError(InputError):
    """A table holds a row twice."""


class NotFiniteError(VinnowError, ValueError):
    """Values that became NaN or infinite, by the cast to the stored type or before it."""


class WriteError(VinnowError, OSError):
    """A file could not be written: the disk is full, or nobody may write there."""


def plain_cause(error: BaseException) -> BaseException:
    """Return the innermost error of ours inside what Ray made of it; without one of ours, the innermost error.

    Ray wraps a worker's error several times, in `cause`, `__cause__` and `worker_failures`.
    """
    ours, inner, seen, waiting = None, error, set[int](), [error]
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        inner = found
        if isinstance(found, VinnowError):
            ours = found
        failures = getattr(found, "worker_failures", None) or {}
        waiting += [e for e in (getattr(found, "cause", None), found.__cause__) if isinstance(e, BaseException)]
        waiting += [e for e in failures.values() if isinstance(e, BaseException)]
    return inner if ours is None else ours


def suggest(name: str, options: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` plus the known options, for the end of an error about a name."""
    known = sorted(options)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{hint} Known: {', '.join(known) or 'none'}."
