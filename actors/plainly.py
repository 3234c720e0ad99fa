"""An actor's error in one line of ours: what Ray makes of it goes into a file, not onto the terminal."""

import re
import traceback
from typing import Any

from ..store.errors import InputError, VinnowError, plain_cause
from ..store.files import join, write_bytes
from .config import FeatureSpec

# what loading weights and processors raises; an error of an actor's constructor reaches the driver as text alone
_AT_START = (VinnowError, OSError, RuntimeError, ValueError, TypeError, LookupError, MemoryError, ImportError)

_ADVICE = re.compile(r"\n?Failed to [^\n]* after \d+/\d+ attempts \(.*\Z", re.S)


class Told:
    """Ray Data's form of an actor, for its errors' sake: what its start raises is raised by its first call instead."""

    def __init__(self, kind: Any, spec: FeatureSpec) -> None:
        self.error: Exception | None = None
        try:
            self.actor = kind(spec)
        except _AT_START as error:
            self.error = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Pass a batch on."""
        if self.error is not None:
            raise self.error
        return self.actor(batch)


def in_one_line(error: Exception, spec: FeatureSpec) -> Exception:
    """Return what to raise for an error that came through Ray: ours as it was, else a line that names the trace's file."""
    cause = plain_cause(error)
    trace = "".join(traceback.format_exception(error))
    cause.args = tuple(_without_advice(cause.args))
    if isinstance(cause, InputError):
        return cause
    kind = spec.config.kind
    path = join(spec.out, f"failure-{kind}.txt")
    write_bytes(path, trace.encode())
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    # an error of Ray's own is a trace that ends in the error
    said = "" if not lines else lines[-1] if type(cause).__module__.startswith("ray.") else lines[0]
    name = "" if isinstance(cause, VinnowError) else f"{type(cause).__name__}: "
    way_out = ""
    if "out of memory" in str(cause).lower() or isinstance(cause, MemoryError):
        way_out = " Give a smaller token_budget or max_rows, or fewer checkpoints_per_pass."
    return VinnowError(
        f"{kind} features: {name}{said}{way_out} What is written stays; run again to go on ({path} has the trace)."
    )


def _without_advice(args: tuple[Any, ...]) -> list[Any]:
    """Drop what Ray Data adds to an error's message: how to make it try again."""
    found = [_ADVICE.sub("", a) if isinstance(a, str) else a for a in args]
    return [new for new, old in zip(found, args, strict=True) if new or not old]
