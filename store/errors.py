"""Errors that a person can act on: what, where, and the way out.

`InputError` (a `ValueError`) is the user's mistake; the command line prints it without a traceback. Everything
else that escapes is ours.
"""

import difflib
import re
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


class KeyTwiceError(InputError):
    """A JSON object names a key twice. `key`: which."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class NotFiniteError(VinnowError, ValueError):
    """Values that became NaN or infinite, by the cast to the stored type or before it."""


class WriteError(VinnowError, OSError):
    """A file could not be written: the disk is full, or nobody may write there."""


class UnfinishedError(VinnowError):
    """Some of what a stage makes failed or was not made; the rest is kept, and told of."""


class BudgetSpentError(UnfinishedError):
    """Work ended because what it was allowed to take is spent, not because something failed; more of that goes on."""


def plain_cause(error: BaseException) -> VinnowError | None:
    """Return the error of ours inside what Ray and others wrapped around it: the innermost one; None if there is none."""
    innermost, waiting, seen = None, [error], set[int]()
    while waiting:
        here = waiting.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        # Ray makes classes that are both its own and the cause's: those carry a traceback for a message
        if isinstance(here, VinnowError) and not hasattr(here, "traceback_str") and not wrapped(here):
            innermost = here
        waiting += [e for e in (here.__cause__, here.__context__) if e is not None] + wrapped(here)
    return innermost


def root_cause(error: BaseException) -> BaseException:
    """Return what Ray wrapped (a task, a worker group, a controller, a user's code), whosever it is."""
    seen = set[int]()
    while id(error) not in seen:
        seen.add(id(error))
        inside = wrapped(error)
        if not inside and type(error).__module__.startswith("ray.") and error.__cause__ is not None:
            inside = [error.__cause__]
        error = inside[0] if inside else error
    return error


def one_line(error: BaseException) -> str:
    """Return what to tell of an error that came through Ray: our words inside it, else the cause's kind and words."""
    ours = plain_cause(error)
    if ours is not None:
        return plain(str(ours))
    root = root_cause(error)
    # of an error of which only the text came through, the last line says it
    lines = [line.strip() for line in plain(str(root)).splitlines() if line.strip()]
    kind = type(root).__name__
    if not lines or type(root).__module__.startswith("ray."):
        return lines[-1] if lines else kind
    return f"{kind}: {' '.join(lines)}"


def plain(text: str) -> str:
    """Return an error's own words without the traceback that a loader process or Ray puts before them."""
    if "Traceback (most recent call last)" not in text:
        return text.strip()
    *_, last = re.split(r"\n(?=[\w.]+(?:Error|Exception|Warning)\b)", text.strip())
    return re.sub(r"^[\w.]+: ", "", last).strip()


def wrapped(error: BaseException) -> list[BaseException]:
    """Return the errors that one of Ray's hangs on itself, first of all workers' that of the lowest rank."""
    failures = getattr(error, "worker_failures", None)
    named = [getattr(error, n, None) for n in ("cause", "controller_failure", "_base_exc")]
    named += [failures[rank] for rank in sorted(failures)] if isinstance(failures, dict) else []
    return [e for e in named if isinstance(e, BaseException)]


def suggest(name: str, options: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` plus the known options, for the end of an error about a name."""
    known = sorted(options)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{hint} Known: {', '.join(known) or 'none'}."
