"""How a command ends before its time: Ctrl-C, SIGTERM, a Ray that is gone. In seconds, in one line, nothing left running.

Libraries put handlers of their own in place of ours (Ray Train, Tune), so the signal is also heard by a thread, through
Python's wakeup pipe: it waits for the main thread to let go of its locks, and ends the process if that takes too long.
What was under way resumes from disk, as after any kill.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from ..progress import plain
from . import ray_words

# seconds that the main thread has to leave what it holds
GRACE = 2.5
_AGAIN = "What is finished stays: run the same command again to go on."
_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
# seconds that the main thread, if it is out of its work at once, waits for the thread that says why
SAYING = 1.0
_ending = threading.Event()
_told = threading.Event()
# what is said of how to go on, other than running the command again
_instead: list[str] = []
_SHOW_CURSOR = "\x1b[?25h"


class Ended(BaseException):
    """Ends the main thread's work; no `except Exception` holds it up, and no framework takes it for its own."""


@contextmanager
def listening() -> Iterator[None]:
    """Have signals end this process while the body runs; elsewhere than in the main thread nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = {number: signal.signal(number, _raise) for number in _CODES}
    outer = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(reader,), name="ending", daemon=True).start()
    try:
        yield
    except Ended as ended:
        _told.wait(SAYING)
        end(int(str(ended)))
    finally:
        signal.set_wakeup_fd(outer)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writer)  # the thread reads the end of the pipe, and is gone


@contextmanager
def going_on(text: str) -> Iterator[None]:
    """While the body runs, a signal ends this process alone: say so in place of "run the same command again"."""
    _instead.append(text)
    stays = False
    try:
        yield
    except Ended:  # the thread that says the text may hear of the signal only after this
        stays = True
        raise
    finally:
        if not stays:
            _instead.remove(text)


def lost(what: str) -> None:
    """End with 1: something that all depends on is gone; but not where it is gone because this process is ending."""
    if _ending.is_set():
        return
    say(f"failed: {what} {_AGAIN}{ray_words.name_in_failure()}")
    end(1)


def end(code: int) -> NoReturn:
    """Kill every process that this one has started, then this one."""
    _ending.set()
    _kill_children()
    if code != 1:
        ray_words.forget()
    if sys.stderr.isatty():
        sys.stderr.write(_SHOW_CURSOR)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # on a disk that is full it would hold up the end
            stream.flush()
    os._exit(code)


def say(text: str) -> None:
    """Print a line on stderr, whatever bar is drawn there."""
    with suppress(OSError):  # a log on a disk that is full: the exit code still says it
        sys.stderr.write(f"\n{plain(text)}\n" if sys.stderr.isatty() else f"{plain(text)}\n")
        sys.stderr.flush()


def _raise(number: int, frame: Any) -> None:
    raise Ended(str(_CODES[signal.Signals(number)]))


def _listen(reader: int) -> None:
    seen = 0
    while heard := os.read(reader, 64):
        for number in heard:
            if number in _CODES:
                seen += 1
                _heard(signal.Signals(number), seen)
    os.close(reader)


def _heard(number: signal.Signals, seen: int) -> None:
    _ending.set()
    if seen > 1:
        end(_CODES[number])
    say(f"ended by {'Ctrl-C' if number == signal.SIGINT else number.name}. {(_instead or [_AGAIN])[-1]}")
    _told.set()
    deadline = threading.Timer(GRACE, end, (_CODES[number],))
    deadline.daemon = True
    deadline.start()


def _kill_children() -> None:
    """Kill all descendants: Ray's daemons, its workers, whatever those have started; wait a moment for them to be gone."""
    import psutil

    try:
        below = psutil.Process().children(recursive=True)
    except psutil.Error:
        return
    for process in below:
        try:
            process.kill()
        except psutil.Error:
            continue
    psutil.wait_procs(below, timeout=1)
