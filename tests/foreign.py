"""Files that are not what they should be, and the command run in this process on what holds them."""

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from vinnow.pipelines import progress
from vinnow.pipelines.cli import main as edge

DEEP = '{"a":' * 1000 + "1" + "}" * 1000
HUGE = "9" * 5000


@dataclass(frozen=True)
class Said:
    """How a command ended and what it wrote; `trace`: what escaped from `main`, if anything did."""

    code: int
    text: str
    trace: str = ""

    @property
    def errors(self) -> list[str]:
        return [line for line in self.text.splitlines() if line.startswith(("error:", "failed:"))]


class RayWanted(SystemExit):
    """The command got as far as starting Ray: all that is looked at before was found sound."""


def no_ray(*_):
    raise RayWanted(0)


def vinnow(*arguments, seconds=150) -> Said:
    """Run the command's own entry in this process."""
    said, before, code, trace = io.StringIO(), sys.argv, 0, ""
    sys.argv = ["vinnow", *map(str, arguments)]
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(seconds)
    wide = Console(file=said, width=400, highlight=False)
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said), _speaking_to(wide):
            edge.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        code, trace = 1, "".join(traceback.format_exception(error))
    finally:
        signal.alarm(0)
        sys.argv = before
    return Said(code, said.getvalue(), trace)


@contextlib.contextmanager
def _speaking_to(console):
    """Print where the test reads: a line that is not wrapped."""
    held = progress.console.file, progress.console.width
    progress.console.file, progress.console.width = console.file, console.width
    try:
        yield
    finally:
        progress.console._file, progress.console._width = None, None
        assert held


def _too_long(*_):
    raise TimeoutError("the command did not end")


def one_line(said: Said, *names) -> str:
    """Hold a command that met a foreign file to its law: one line that names it, no traceback, exit code 1 or 2."""
    assert not said.trace, said.trace
    assert "Traceback" not in said.text, said.text
    assert said.code in (1, 2), (said.code, said.text)
    assert len(said.errors) == 1, said.text
    assert "a bug of vinnow" not in said.text, said.text
    line = said.errors[0]
    assert any(str(name) in line for name in names) or not names, (names, line)
    return line


def clear(path: Path) -> None:
    """Take away whatever is at a path."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _bytes(data):
    def put(path: Path) -> None:
        clear(path)
        path.write_bytes(data)

    return put


def _cut(path: Path) -> None:
    data = path.read_bytes()
    clear(path)
    path.write_bytes(data[: len(data) * 2 // 3])


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8] = bytes(b ^ 0xFF for b in data[len(data) // 2 : len(data) // 2 + 8])
    clear(path)
    path.write_bytes(bytes(data))


def _folder(path: Path) -> None:
    clear(path)
    path.mkdir()


def _loop(path: Path) -> None:
    clear(path)
    path.symlink_to(path.name)


def _dangling(path: Path) -> None:
    clear(path)
    path.symlink_to("nowhere-at-all")


def _fifo(path: Path) -> None:
    clear(path)
    os.mkfifo(path)


def _encoded(encoding):
    def put(path: Path) -> None:
        text = path.read_bytes().decode(errors="replace")
        clear(path)
        path.write_bytes(text.encode(encoding, "replace"))

    return put


# what may be found in a JSON file's place
JSON = {
    "empty": _bytes(b""),
    "blank": _bytes(b"  \n"),
    "zeros": _bytes(bytes(64)),
    "garbage": _bytes(bytes(range(128, 256)) * 3),
    "cut": _cut,
    "latin1": _bytes(b'{"a": "caf\xe9"}'),
    "utf16": _encoded("utf-16"),
    "surrogate": _bytes(b'{"a": "\\ud800"}'),
    "list": _bytes(b"[1, 2]"),
    "list-of-objects": _bytes(b'[{"a": 1}]'),
    "text": _bytes(b'"x"'),
    "number": _bytes(b"7"),
    "null": _bytes(b"null"),
    "object": _bytes(b"{}"),
    "other-object": _bytes(b'{"a": 1}'),
    "nested": _bytes(DEEP.encode()),
    "deeper": _bytes(b"[" * 100_000),
    "huge-number": _bytes(b'{"a": ' + HUGE.encode() + b"}"),
    "nan": _bytes(b'{"a": NaN}'),
    "web-page": _bytes(b"<!DOCTYPE html><html>404</html>"),
    "pointer": _bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
    "folder": _folder,
    "loop": _loop,
    "dangling": _dangling,
    "fifo": _fifo,
}
# and in a binary file's
BINARY = {
    n: JSON[n]
    for n in ("empty", "zeros", "garbage", "cut", "list", "web-page", "pointer", "folder", "loop", "dangling", "fifo")
} | {"flipped": _flipped}
# values of a wrong kind, as JSON text
VALUES = {
    "null": "null",
    "text": '"many"',
    "negative": "-3",
    "zero": "0",
    "fraction": "0.5",
    "list": "[1, 2]",
    "object": '{"a": 1}',
    "true": "true",
    "infinite": "1e999",
    "huge": HUGE,
    "nested": "[" * 1000 + "]" * 1000,
}


def put_field(file: Path, field: str, text: str) -> None:
    """Write JSON `text` into a field (`a.b`, list items by number) of a JSON file."""
    values = json.loads(file.read_text())
    *parents, last = field.split(".")
    here = values
    for name in parents:
        here = here[int(name)] if isinstance(here, list) else here.setdefault(name, {})
    here[int(last) if isinstance(here, list) else last] = "@here@"
    file.write_text(json.dumps(values).replace('"@here@"', text))


@contextlib.contextmanager
def damaged(path: Path, how):
    """Damage a file for a while."""
    aside = path.with_name(f"{path.name}.aside")
    there = path.exists()
    if there:
        shutil.copy2(path, aside)
    hidden = aside.rename(path.parent.parent / f".{path.name}.aside") if there else None
    try:
        how(path)
        yield
    finally:
        clear(path)
        if hidden is not None:
            hidden.rename(path)
