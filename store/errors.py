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


class DamagedError(InputError):
    """A file of ours is cut off or otherwise unreadable."""


class MissingRowsError(InputError):
    """A table holds fewer rows than its reader needs ("100 of 300")."""


class DuplicateRowsError(InputError):
    """A table holds a row twice."""


class NotFiniteError(VinnowError, ValueError):
    """Values that became NaN or infinite, by the cast to the stored type or before it."""


class WriteError(VinnowError, OSError):
    """A file could not be written: the disk is full, or nobody may write there."""


def plain_cause(error: BaseException) -> VinnowError | None:
    """Return the error of ours inside what Ray and others wrapped around it: the innermost one; None if there is none."""
    found, waiting, seen = None, [error], set[int]()
    while waiting:
        here = waiting.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        # Ray makes classes that are both its own and the cause's: those carry a traceback for a message
        if isinstance(here, VinnowError) and not hasattr(here, "traceback_str"):
            found = here
        inner = [here.__cause__, here.__context__, getattr(here, "cause", None)]
        inner += list((getattr(here, "worker_failures", None) or {}).values())
        waiting += [e for e in inner if isinstance(e, BaseException)]
    return found


def suggest(name: str, options: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` plus the known options, for the end of an error about a name."""
    known = sorted(options)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{hint} Known: {', '.join(known) or 'none'}."
