"""Work done ahead of its consumer, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


def prefetch(
    threads: ThreadPoolExecutor, work: Callable[[Any], Any], items: Iterable[Any], count: int
) -> Iterator[Any]:
    """Yield `work(item)` in order; threads are at most `count` items ahead of the consumer."""
    waiting: deque[Future[Any]] = deque()
    try:
        for item in items:
            waiting.append(threads.submit(work, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # the consumer may stop early, or an item be refused
        for future in waiting:
            future.cancel()
