"""Requests → batches → answers: one thread for each copy of the model takes what waits, and answers it together.

A new batch begins when the last one has ended. A request is a `Job`; its future is all that its client and its batch share:
whoever ends it (the client hung up, its time is over) has its row given up at the next token.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from ...evaluate.generator import Generator, Reply
from ...evaluate.sampling import Sampling
from ...evaluate.text_stream import TextStream
from ...pool.encode import Encoded
from ...store.errors import one_line
from .config import ServeConfig
from .errors import ApiError

# what a model raises on a batch that it cannot answer: too little memory, above all
_FAILURES = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError)


@dataclass(eq=False)
class Job:
    """One request that was accepted. `hear` is told of its text in pieces, by the model's thread."""

    prompt: Encoded
    sampling: Sampling
    hear: Callable[[str], None] | None = None
    done: "Future[Reply]" = field(default_factory=Future)
    heard: bool = False

    @property
    def tokens(self) -> int:
        """The places that it may come to take."""
        return len(self.prompt.input_ids) + self.sampling.max_new_tokens


@dataclass
class Counts:
    """What was done so far. `largest`: rows of the largest batch; `seconds`: of the last batch."""

    batches: int = 0
    rows: int = 0
    largest: int = 0
    given_up: int = 0
    failed: int = 0
    tokens: int = 0
    seconds: float = 0.0


class Engine:
    """The copies of one model and what waits for them."""

    def __init__(self, generators: Sequence[Generator], config: ServeConfig, died: Callable[[], None]) -> None:
        """Start a thread for each copy; `died` is called by a thread that meets what no request is to blame for."""
        self.counts, self._config, self._died = Counts(), config, died
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(g,), name=f"model {i}", daemon=True)
            for i, g in enumerate(generators)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many are in no batch yet."""
        return len(self._waiting)

    def submit(self, job: Job) -> None:
        """Have a request answered, after those that came before."""
        with self._changed:
            self._waiting.append(job)
            self._changed.notify_all()

    def close(self, seconds: float) -> None:
        """Let the batches under way end, for so long, and take no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _work(self, generator: Generator) -> None:
        try:
            while batch := self._next():
                begin = time.monotonic()
                self._answer(generator, batch)
                self.counts.seconds = time.monotonic() - begin
        except BaseException:
            self._died()
            raise

    def _next(self) -> list[Job]:
        """Wait for a batch and return it; none when all is over."""
        with self._changed:
            while not self._closed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                self._changed.wait_for(self._is_full, self._config.max_wait_ms / 1000)
                # another copy may have been quicker, and clients may have left
                if batch := self._take():
                    return batch
        return []

    def _is_full(self) -> bool:
        return len(self._waiting) >= self._config.max_batch or self._closed

    def _take(self) -> list[Job]:
        batch, longest_prompt, longest_answer = list[Job](), 0, 0
        while self._waiting and len(batch) < self._config.max_batch:
            job = self._waiting[0]
            if not job.done.done():
                longest_prompt = max(longest_prompt, len(job.prompt.input_ids))
                longest_answer = max(longest_answer, job.sampling.max_new_tokens)
                size = (len(batch) + 1) * (longest_prompt + longest_answer)
                if batch and size > self._config.max_batch_tokens:
                    break
                batch.append(job)
            else:
                self.counts.given_up += 1
            self._waiting.popleft()
        return batch

    def _answer(self, generator: Generator, batch: list[Job]) -> None:
        """Answer a batch. Where it fails before anyone heard of it, each row is tried alone: one may be to blame."""
        streams = [TextStream(generator.text, job.sampling.stop) for job in batch]

        def watch(row: int, token: int) -> bool:
            job = batch[row]
            if job.done.done():
                return False
            if job.hear and (piece := streams[row].push(token)):
                job.heard = True
                job.hear(piece)
            return True

        try:
            replies = generator.reply([j.prompt for j in batch], [j.sampling for j in batch], watch)
        except _FAILURES as error:
            self._failed(generator, batch, error)
            return
        self.counts.batches += 1
        self.counts.rows += len(batch)
        self.counts.largest = max(self.counts.largest, len(batch))
        for job, reply, stream in zip(batch, replies, streams, strict=True):
            self.counts.tokens += len(reply.tokens)
            self.counts.given_up += reply.finish == "given_up"
            if job.hear and not job.done.done() and (rest := stream.close()):
                job.hear(rest)
            with suppress(InvalidStateError):  # given up in this very moment
                job.done.set_result(reply)

    def _failed(self, generator: Generator, batch: list[Job], error: BaseException) -> None:
        again = [job for job in batch if len(batch) > 1 and not job.heard]
        print(f"a batch of {len(batch)} failed: {one_line(error)}", file=sys.stderr, flush=True)
        for job in batch:
            if job not in again:
                self.counts.failed += 1
                with suppress(InvalidStateError):
                    message = f"the model failed on this request ({type(error).__name__}); the server's log says more."
                    job.done.set_exception(ApiError(500, message, code="generation_failed"))
        for job in again:
            self._answer(generator, [job])
