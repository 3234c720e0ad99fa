"""Who may come in: how many requests are under way, how many bytes their bodies hold, and nobody once the end has begun.

And what became of each: whoever was let in is under way, or counted in one of `Outcomes`.
"""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .config import ServeConfig
from .errors import ApiError

# bodies of the largest size that are held at a time
LARGE_BODIES = 8


@dataclass
class Outcomes:
    """Requests that were `accepted`, and how they ended: accepted = answered + refused + errors + hung_up + under way.

    `refused`: told that it cannot be asked (4xx); `errors`: told that there is no answer (5xx, or a stream's last event);
    `hung_up`: the client left. `turned_away` were never accepted: no place, or the server is ending.
    """

    accepted: int = 0
    answered: int = 0
    refused: int = 0
    errors: int = 0
    hung_up: int = 0
    turned_away: int = 0


class Place:
    """The place of a request under way. `failed`: its stream ended with an error, after its status had been sent."""

    failed = False


class Admission:
    """Counts the requests under way. One that is let in is answered; one that is not is told when to ask again."""

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        self.outcomes = Outcomes()
        self.requests = self._bytes = 0
        # no more is let in; what was is not answered any more
        self.draining = self.ended = False
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def enter(self, seconds: float) -> Iterator[Place]:
        """Hold a place while a request is under way. `seconds`: how long a batch takes.

        Raises:
            ApiError: 503 (the server is ending), or 429 with `retry_after`.
        """
        self.outcomes.turned_away += 1
        if self.draining:
            raise ApiError(503, "the server is ending and takes no more requests.", code="shutting_down")
        if self.requests >= self._config.max_requests:
            raise _full("requests", seconds)
        self.outcomes.turned_away -= 1
        self.outcomes.accepted += 1
        self.requests += 1
        self._idle.clear()
        place = Place()
        try:
            yield place
        except (asyncio.CancelledError, ConnectionError):
            self.outcomes.hung_up += 1
            raise
        except ApiError as error:
            self.outcomes.refused += error.status < 500
            self.outcomes.errors += error.status >= 500
            raise
        except BaseException:
            self.outcomes.errors += 1
            raise
        else:
            self.outcomes.answered += not place.failed
            self.outcomes.errors += place.failed
        finally:
            self.requests -= 1
            if not self.requests:
                self._idle.set()

    @contextmanager
    def hold(self, length: int | None, seconds: float) -> Iterator[None]:
        """Hold room for a body of this length while it is read; one that does not say its length may be the largest.

        Raises:
            ApiError: 413, or 429 with `retry_after`.
        """
        limit = self._config.max_body_bytes
        size = limit if length is None else length
        if size > limit:
            raise too_large(limit)
        if self._bytes + size > LARGE_BODIES * limit:
            raise _full("large bodies", seconds)
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size

    async def idle(self) -> None:
        """Wait until no request is under way."""
        await self._idle.wait()


def too_large(limit: int) -> ApiError:
    """Return the refusal of a body."""
    return ApiError(413, f"the body is larger than {limit} bytes.", code="request_too_large")


def _full(what: str, seconds: float) -> ApiError:
    error = ApiError(429, f"the server has as many {what} as it takes at a time.", code="rate_limit_exceeded")
    error.retry_after = min(60, max(1, math.ceil(seconds)))
    return error
