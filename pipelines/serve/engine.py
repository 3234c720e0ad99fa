"""Requests → batches → answers: one thread for each copy of the model takes what waits, and answers it together.

A new batch begins when the last one has ended. A request is a `Job`; its future is all that its client and its batch share:
whoever ends it (the client hung up, its time is over) has its row given up at the next token.

After a failure the model is asked a question of the engine's own. One that cannot answer even that (after a device-side
assert every later call on a GPU fails) is no fault of a request: its thread ends, and with it the server, so that whoever
watches over it starts another.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

import torch

from ...evaluate.generator import Generator, Reply, Turn
from ...evaluate.sampling import Sampling
from ...evaluate.text_stream import TextStream
from ...pool.encode import Encoded, EncodeError
from ...store.errors import InputError, VinnowError, one_line
from .config import ServeConfig
from .errors import ApiError

# what a model raises on a batch that it cannot answer: too little memory, above all
_FAILURES = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError)


class DeadModelError(VinnowError):
    """A model answers nothing any more."""


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
        """Start a thread for each copy; `died` is called by a thread that meets what no request is to blame for.

        Raises:
            InputError: a copy cannot answer a short question.
        """
        self.counts, self._config, self._died = Counts(), config, died
        # encoded before there are threads: a tokenizer is one's at a time
        self._tests = {id(g): _short_question(g) for g in generators}
        if fault := next(filter(None, map(self._fault, generators)), None):
            raise InputError(f"this model answers nothing: {fault}.")
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

    def forget(self, job: Job) -> None:
        """Have a request that nobody waits for take no place any more, if it is in no batch yet."""
        with self._changed, suppress(ValueError):
            self._waiting.remove(job)
            self.counts.given_up += 1

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
        except DeadModelError as error:
            print(error, file=sys.stderr, flush=True)
            self._died()
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
        if not all(reply.finite for reply in replies):
            self._test(generator)

    def _failed(self, generator: Generator, batch: list[Job], error: BaseException) -> None:
        again = [job for job in batch if len(batch) > 1 and not job.heard]
        print(f"a batch of {len(batch)} failed: {one_line(error)}", file=sys.stderr, flush=True)
        self._test(generator)
        for job in batch:
            if job not in again:
                self.counts.failed += 1
                with suppress(InvalidStateError):
                    message = f"the model failed on this request ({type(error).__name__}); the server's log says more."
                    job.done.set_exception(ApiError(500, message, code="generation_failed"))
        for job in again:
            self._answer(generator, [job])

    def _test(self, generator: Generator) -> None:
        """Ask the engine's own question. Raises: DeadModelError: it has no answer."""
        if fault := self._fault(generator):
            raise DeadModelError(
                f"the model on {generator.device} cannot answer any more: {fault}. The server ends; start it anew."
            )

    def _fault(self, generator: Generator) -> str:
        """Return what is wrong with a model, "" if it answers."""
        try:
            if generator.device.type == "cuda":
                torch.cuda.empty_cache()  # a batch that was too large leaves its memory behind
            (reply,) = generator.reply([self._tests[id(generator)]], [Sampling(max_new_tokens=1)])
        except _FAILURES as error:
            return one_line(error)
        return "" if reply.finite else "its logits are NaN or infinite"


def _short_question(generator: Generator) -> Encoded:
    try:
        return generator.encode([Turn("human", "hello")])
    except EncodeError as error:
        raise InputError(f"this model cannot be asked a question without a picture: {error}") from error
