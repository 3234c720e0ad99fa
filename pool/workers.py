"""Processes that draft blocks and look at pictures: plain children on pipes, in the order asked, dead when their parent is.

Not `multiprocessing`: its children start the caller's script again (a script without a main guard would ingest in
each), and those of a killed pool stay. A child here reads until its pipe closes, which a kill of the parent does too.
What that earns is measured (`benchmarks/ingest_workers.py`): a `ProcessPoolExecutor` in its place takes 1.3 to 1.5 times
as long, and half as much memory again; without blocks too it takes 2.4 to 3.7 times as long.
"""

import gc
import json
import os
import queue
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, BinaryIO, TypeVar

from ..store.errors import InputError, VinnowError
from ..store.files import digest, exists, join, read_bytes
from ..store.machine import refusal
from .blocks import Block
from .draft import Draft, draft, draft_block, from_bytes, to_bytes
from .image_checks import Look, LookConfig, look_at

T = TypeVar("T")
# a process a core: no threads inside. glibc would give a block's memory back after each block and fault it in again,
# a fifth of all time
_CHILD = {
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_MMAP_THRESHOLD_": "67108864",
}

# a request: what it is (lines or array of records, pictures), where its block starts, its bytes
_HEAD = struct.Struct("<cQQ")
_LENGTH = struct.Struct("<Q")
# with it the answer is what the machine refused, in words
_FAILED = 1 << 63
_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from {} import serve; serve(*sys.argv[2:])"


class Workers:
    """Works in `number` processes; with 0 in this one, at once. Use as a context."""

    def __init__(self, number: int, tokenizer: str | None, pictures: LookConfig) -> None:
        self._pictures = pictures
        # here too: a folder without one is the caller's error, and single records are drafted here
        self._count = token_counter(tokenizer) if tokenizer else None
        self._children: list[subprocess.Popen[bytes]] = []
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(number, thread_name_prefix="workers") if number else None
        environment = os.environ | _CHILD
        command = [sys.executable, "-I", "-c", _START.format(__name__), json.dumps(sys.path)]
        command += [json.dumps(asdict(pictures)), tokenizer or ""]
        for _ in range(number):
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            self._children.append(child)
            self._idle.put(child)
        # blocks under way: each process has the next one waiting, and a slow block does not hold up the others
        self.window = 3 * number or 1

    def submit(self, block: Block) -> Future[Draft]:
        """Draft a block; the future raises VinnowError when its process has died."""
        if self._threads is None:
            return _done(draft_block(block, self._count, self._pictures.root))
        head = _HEAD.pack(b"l" if block.lines else b"a", block.start, len(block.data))
        return self._threads.submit(lambda: from_bytes(self._ask(head, block.data)))

    def look(self, images: list[str]) -> Future[list[Look]]:
        """Look at pictures; as `submit`."""
        if self._threads is None:
            return _done(look_at(self._pictures, images))
        names = json.dumps(images).encode()
        head = _HEAD.pack(b"p", 0, len(names))
        return self._threads.submit(lambda: [Look(**look) for look in json.loads(self._ask(head, names))])

    def draft(self, values: Sequence[Any]) -> Draft:
        """Draft parsed records in this process."""
        return draft(values, self._count, self._pictures.root)

    def _ask(self, head: bytes, data: bytes) -> bytes:
        child = self._idle.get()
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(head)
            child.stdin.write(data)
            child.stdin.flush()
            (size,) = _LENGTH.unpack(_read(child.stdout, _LENGTH.size))
            answer = _read(child.stdout, size & ~_FAILED)
        except (BrokenPipeError, EOFError) as error:
            raise VinnowError(
                f"a process that read records died (exit code {child.wait()}); a kill by the system means memory was "
                "short. Nothing half-done counts: run the same again, with fewer `workers` if it was memory."
            ) from error
        finally:
            self._idle.put(child)
        if size & _FAILED:
            raise VinnowError(answer.decode())
        return answer

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: Any) -> None:
        for child in self._children:
            child.kill()  # they hold nothing; those that wait would end by themselves
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        for child in self._children:
            child.wait()
            for pipe in (child.stdin, child.stdout):
                assert pipe is not None
                _close(pipe)


def _done(result: T) -> Future[T]:
    future: Future[T] = Future()
    future.set_result(result)
    return future


def _close(pipe: Any) -> None:
    try:
        pipe.close()
    except BrokenPipeError:  # what a dead child did not take
        return


def _read(pipe: Any, size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data


def serve(pictures: str, tokenizer: str) -> None:
    """Answer requests from standard input on standard output until it closes: the child's side."""
    source: BinaryIO = sys.stdin.buffer
    sink = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # nothing else may write there
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C goes to the parent too, which ends its children
    # records have no cycles, and the collector would look through them all again and again
    gc.disable()
    config = LookConfig(**json.loads(pictures))
    count = token_counter(tokenizer) if tokenizer else None
    while head := source.read(_HEAD.size):
        kind, start, size = _HEAD.unpack(head)
        data = _read(source, size)
        failed = 0
        try:
            if kind == b"p":
                answer = json.dumps([asdict(look) for look in look_at(config, json.loads(data))]).encode()
            else:
                answer = to_bytes(draft_block(Block(data, start, kind == b"l"), count, config.root)).to_pybytes()
        except (VinnowError, OSError, MemoryError) as error:
            answer, failed = _refused(error).encode(), _FAILED
        rest = memoryview(_LENGTH.pack(len(answer) | failed) + answer)
        try:
            while rest:
                rest = rest[sink.write(rest) :]
        except BrokenPipeError:  # nobody waits any more
            return


def _refused(error: Exception) -> str:
    """Return what the machine refused in one line; any other error goes on."""
    said = str(error) if isinstance(error, VinnowError) and not isinstance(error, InputError) else refusal(error)
    if said is None:
        raise error
    return said


def token_counter(folder: str) -> Callable[[list[str]], list[int]]:
    """Return what counts texts' tokens, without special ones, by a Hugging Face folder's `tokenizer.json`.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    from tokenizers import Tokenizer

    path = join(folder, "tokenizer.json")
    if not exists(path):
        raise InputError(f"{folder!r} holds no tokenizer.json. Give a folder with a fast tokenizer or a processor.")
    try:
        tokenizer = Tokenizer.from_str(read_bytes(path).decode())
    except Exception as error:  # the library raises no narrower class
        raise InputError(f"{path!r} cannot be read: {error}.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: list[str]) -> list[int]:
        return [len(e.ids) for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    return count


def tokenizer_digest(folder: str | None) -> str | None:
    """Name a tokenizer by its content."""
    return None if folder is None else digest(read_bytes(join(folder, "tokenizer.json")))
