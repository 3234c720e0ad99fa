"""Stdout, where results go: what it does not take is an error that says so, and no command ends well with half a result."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from ...store.errors import WriteError
from ...store.machine import refusal

_WAY_OUT = "Make room where it goes, or send it elsewhere"


class _Results:
    """A text stream whose errors name it; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _named(self._stream):
            return self._stream.write(text)

    def flush(self) -> None:
        with _named(self._stream):
            self._stream.flush()


@contextmanager
def naming_stdout() -> Iterator[None]:
    """Have stdout's errors name it while the body runs, at whose end it is flushed.

    Raises:
        WriteError: it cannot be written.
    """
    before = sys.stdout
    sys.stdout = cast(TextIO, _Results(before))
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    finally:
        sys.stdout = before


def keep_deepspeed_off() -> None:
    """Send what DeepSpeed warns of to stderr, as it logs to stdout; that there is no GPU, our own first line says."""

    def elsewhere(record: logging.LogRecord) -> bool:
        if "Setting accelerator to CPU" not in record.getMessage() and logging.lastResort is not None:
            logging.lastResort.handle(record)
        return False

    logging.getLogger("DeepSpeed").addFilter(elsewhere)


@contextmanager
def _named(stream: TextIO) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # whoever reads has had enough
        raise
    except OSError as error:
        _let_go(stream)
        said = refusal(error, _WAY_OUT) or f"{error}. {_WAY_OUT}, and run again."
        raise WriteError(f"the result cannot be written to stdout: {said}") from error


def _let_go(stream: TextIO) -> None:
    """Send what is still held for a stdout that takes nothing nowhere: Python would try again at its end."""
    try:
        handle = stream.fileno()
    except (OSError, AttributeError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, handle)
    os.close(nowhere)
