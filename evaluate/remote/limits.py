"""What all threads of a client hold to together: requests and tokens per minute, pauses, and a cap of money."""

import threading
import time
from collections.abc import Callable

from ...store.errors import VinnowError


class EndedError(VinnowError):
    """The job ended while this thread waited for its turn; what ended it was raised by another."""


class BudgetError(VinnowError):
    """The next request could pass the cap of money."""


class Bucket:
    """A token bucket: no minute, wherever it begins, has more than `per_minute` units, a second's worth (or one) at once.

    The bucket fills a little slower than that (by 1/60 at most), since what it saved comes on top in one minute. What
    takes more than fits waits for a full bucket and leaves a debt, which those after it wait for.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.room = max(1.0, per_minute / 60)
        self.per_second = (per_minute - (self.room - 1)) / 60
        self._clock, self._level, self._seen = clock, self.room, clock()

    def wait(self, units: float) -> float:
        """Return the seconds after which `units` may pass; 0: now."""
        now = self._clock()
        self._level = min(self.room, self._level + (now - self._seen) * self.per_second)
        self._seen = now
        short = min(units, self.room) - self._level
        return short / self.per_second if short > 1e-9 else 0.0  # a rounding error is no time to sleep

    def take(self, units: float) -> None:
        """Count units that pass; a negative number gives back what was not used."""
        self._level -= units


class Limits:
    """Requests and tokens per minute over all threads; `hold` is a pause for all, `end` lets nobody pass any more."""

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests = Bucket(requests_per_minute, clock) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute, clock) if tokens_per_minute else None
        self._clock, self._held_until, self._ended = clock, 0.0, False
        self._turn, self._change = threading.Lock(), threading.Condition()

    def admit(self, tokens: int) -> None:
        """Wait until a request of about so many tokens may start, and count it.

        Raises:
            EndedError: the job ended meanwhile.
        """
        # one thread at a time waits for room; a small request does not pass a large one for ever
        with self._turn, self._change:
            while not self._ended and (seconds := self._seconds(tokens)) > 0:
                self._change.wait(seconds)
            if self._ended:
                raise EndedError("the job ended.")
            if self._requests:
                self._requests.take(1)
            if self._tokens:
                self._tokens.take(tokens)

    def settle(self, estimated: int, used: int) -> None:
        """Correct an admitted request's tokens by what it really used."""
        if self._tokens:
            with self._change:
                self._tokens.take(used - estimated)
                self._change.notify_all()

    def hold(self, seconds: float) -> None:
        """Let no request start for so long: the endpoint asked for a pause."""
        with self._change:
            self._held_until = max(self._held_until, self._clock() + seconds)
            self._change.notify_all()

    def sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the end of the job.

        Raises:
            EndedError: the job ended meanwhile.
        """
        until = self._clock() + seconds
        with self._change:
            while not self._ended and (left := until - self._clock()) > 0:
                self._change.wait(left)
            if self._ended:
                raise EndedError("the job ended.")

    def end(self) -> None:
        """Wake whoever waits: the job is over."""
        with self._change:
            self._ended = True
            self._change.notify_all()

    def _seconds(self, tokens: int) -> float:
        waits = [self._held_until - self._clock()]
        waits += [self._requests.wait(1)] if self._requests else []
        waits += [self._tokens.wait(tokens)] if self._tokens else []
        return max(waits)


class Purse:
    """Money spent and under way. What could pass the cap waits for what is under way, whose true cost may be less."""

    def __init__(self, most: float | None, spent: float = 0.0) -> None:
        self.most, self.spent = most, spent
        self._reserved, self._under_way, self._ended = 0.0, 0, False
        self._change = threading.Condition()

    def reserve(self, cost: float) -> None:
        """Set aside what a request may cost at most.

        Raises:
            BudgetError: nothing is under way, and the cap could be passed.
            EndedError: the job ended meanwhile.
        """
        with self._change:
            while self.most is not None and self.spent + self._reserved + cost > self.most and not self._ended:
                if not self._under_way:
                    raise BudgetError(
                        f"the cap max_cost={self.most:g} stops here: {self.spent:.4g} is spent, and the next request may "
                        f"cost up to {cost:.4g}. Raise max_cost and run again: what is answered is not paid again."
                    )
                self._change.wait()
            if self._ended:
                raise EndedError("the job ended.")
            self._reserved += cost
            self._under_way += 1

    def settle(self, reserved: float, cost: float) -> None:
        """Count what a request cost in the place of what was set aside for it."""
        with self._change:
            self.spent += cost
            self._under_way -= 1
            self._reserved = self._reserved - reserved if self._under_way else 0.0
            self._change.notify_all()

    def end(self) -> None:
        """Wake whoever waits: the job is over."""
        with self._change:
            self._ended = True
            self._change.notify_all()
