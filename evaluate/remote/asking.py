"""Many questions through one client at a time, in order; and what of an answer counts as one."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ...pool.refusals import RefusedError
from .client import Client, RowError
from .config import RemoteSampling
from .reply import REFUSALS, Message, Reply

T = TypeVar("T")
R = TypeVar("R")


def in_threads(
    work: Callable[[T], R], items: Sequence[T], threads: int, tell: Callable[[int], object] = int
) -> list[R]:
    """Return `work` of each item, in order; `tell` hears how many are done. The first error ends what has not begun."""
    with ThreadPoolExecutor(max(1, min(threads, len(items)))) as pool:
        futures = [pool.submit(work, item) for item in items]
        results = []
        try:
            for future in futures:
                results.append(future.result())
                tell(len(results))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return results


def ask(client: Client, messages: list[Message], sampling: RemoteSampling) -> Reply:
    """Return the reply to a prompt. Raises: as `Client.chat`, but for a row without an answer: `RefusedError`."""
    try:
        return client.chat(messages, sampling)
    except RowError as error:
        raise RefusedError(error.reason, str(error)) from error


def text_of(reply: Reply) -> str:
    """Return a reply's text as a benchmark scores it: one that reached its length is an answer, and so is "".

    Raises:
        RefusedError: it is none: held back, declined, cut off before it said anything, or no text that can be written.
    """
    text = reply.text.strip()
    if reply.refused not in (None, "empty_answer") and not (reply.refused == "cut_by_length" and text):
        raise RefusedError(reply.refused, REFUSALS[reply.refused])
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RefusedError("bad_text", REFUSALS["bad_text"]) from error
    return text
