"""What Ray or a library said of a stage that failed: a file beside its tables, for whoever wants more than one line."""

import os
import traceback

from .errors import WriteError
from .files import join, write_bytes

TRACE = "failure.txt"


def leave_trace(out: str | os.PathLike[str], error: BaseException) -> str:
    """Write an error with all that wraps it to `OUT/failure.txt`; return what a message says of it."""
    path = join(out, TRACE)
    try:
        write_bytes(path, "".join(traceback.format_exception(error)).encode(errors="backslashreplace"))
    except WriteError:  # what failed first says more
        return f"({path} could not be written, so there is no trace.)"
    return f"({path} has the trace.)"
