"""The one client of OpenAI-compatible endpoints: asks once, pays once, and says in one line why it cannot go on.

Each try has an `Idempotency-Key`. One whose end is not known (the connection broke, the process was killed) is repeated
under the same key; after an answer of any kind the next try has another, since endpoints that keep answers keep errors.

Threads share a client. An answer comes from the cache, or is on disk there before it is handed on. What ends the job (a
key that is not accepted, a model that is not there, the cap of money, an endpoint that is down) is raised in every thread.
"""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from ...store.errors import InputError, VinnowError
from ...store.reading import wrong
from .cache import Cache
from .config import EndpointConfig, RemoteSampling
from .limits import EndedError, Limits, Purse
from .reply import (
    FAILURES,
    BrokenReplyError,
    Message,
    Reply,
    Tokens,
    body_of,
    error_code,
    error_text,
    most_tokens,
    parse_reply,
    request_key,
)

_RETRIED = frozenset({408, 409, 425, 429})
# the request itself is wrong, or too long: another row's may be right
_OF_THE_ROW = frozenset({400, 413, 422})
_MEANT = {
    401: "the key is not accepted, or none was sent (api_key_env)",
    402: "the account has no money left",
    403: "the key may not use this model or endpoint",
    404: "there is no such model, or base_url is not where the endpoint is (does it end in /v1?)",
}
# nothing had been sent when these were raised, so nothing is paid
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


class EndpointError(InputError):
    """The endpoint cannot be used as it was asked; the job ends."""


class DownError(VinnowError):
    """One request after the other was given up; the job ends."""


class RowError(VinnowError):
    """One request has no answer; `reason` is a key of `FAILURES`."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in FAILURES, reason
        super().__init__(detail)
        self.reason = reason

    def __reduce__(self) -> tuple[type["RowError"], tuple[str, str]]:
        """Travel between processes with the reason."""
        return type(self), (self.reason, str(self))


class _TryAgain(Exception):  # no error for anyone else
    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


@dataclass
class _Try:
    """One try's price: `bound` tokens and `most` money at most, `tokens` as they are expected, and what it came to.

    `name`: its `Idempotency-Key`, "" before it is sent; `certain`: the endpoint has answered it, in whatever way.
    """

    bound: int
    tokens: int
    most: float
    begin: float = 0.0
    used: int = 0
    cost: float = 0.0
    answered: bool = False
    name: str = ""
    certain: bool = False

    def may_be_paid(self) -> None:
        """Count it as paid in full: it was sent, and nothing says that it was not answered."""
        self.used, self.cost = self.tokens, self.most


class Client:
    """Asks one endpoint. `counts`: requests sent, answers, answers from the cache, tries after a failure, tokens."""

    def __init__(self, config: EndpointConfig, cache: Cache) -> None:
        """Open a client. Raises: InputError: the key is not in the environment."""
        self.config, self.cache, self._key = config, cache, config.key()
        self.counts = Counter[str]()
        self.limits = Limits(config.requests_per_minute, config.tokens_per_minute)
        self.purse = Purse(config.max_cost, cache.spent())
        self._lock, self._slots = threading.Lock(), threading.BoundedSemaphore(config.concurrency)
        self._ended: VinnowError | None = None
        self._given_up = 0
        headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._http = httpx2.Client(
            headers=headers,
            timeout=config.timeout_s,
            limits=httpx2.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency),
            follow_redirects=False,
            trust_env=not config.loopback,  # a proxy has no business with what stays on this machine
        )

    def chat(self, messages: list[Message], sampling: RemoteSampling) -> Reply:
        """Return the answer to a prompt: from the cache, or from the endpoint; `Reply.refused` says if it is of no use.

        Raises:
            RowError: this prompt has no answer.
            EndpointError, DownError, BudgetError: the job is over; every later call raises the same.
        """
        body = body_of(self.config, messages, sampling)
        key = request_key(body)
        with self.cache.alone(key):
            reply = self.cache.get(key)
            if reply is not None:
                self._count("cached")
                return reply
            if self.config.under_way == "skip" and self.cache.was_under_way(key):
                raise RowError("under_way", FAILURES["under_way"])
            with self._slots, self._ending():
                return self._ask(key, body, most_tokens(self.config, messages))

    def ended_by(self) -> VinnowError | None:
        """Return what ended the job, or None."""
        return self._ended

    def close(self) -> None:
        """Let go of the connections; the cache is the caller's."""
        self._http.close()

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """Have what ends the job end it for all threads."""
        if self._ended:
            raise self._ended
        try:
            yield
        except RowError:
            raise
        except EndedError as error:
            raise (self._ended or error) from None
        except VinnowError as error:
            with self._lock:
                self._ended = self._ended or error
            self.limits.end()
            self.purse.end()
            raise

    def _ask(self, key: str, body: dict[str, Any], prompt: int) -> Reply:
        data, why = json.dumps(body).encode(), ""
        answer = body[self.config.length_field]
        for number in range(self.config.max_tries):
            if number:
                self._count("retries")
            try:
                bound = prompt + answer
                reply = self._try(key, data, _Try(bound, self._expected(bound), self.config.cost(prompt, answer)))
            except _TryAgain as again:
                why = str(again)
                if number + 1 < self.config.max_tries:
                    self._pause(number, again.after)
            else:
                self._given_up = 0
                return reply
        return self._give_up(why)

    def _give_up(self, why: str) -> Reply:
        said = f"{self.config.base_url} gave no answer in {self.config.max_tries} tries: {why}"
        with self._lock:
            self._given_up += 1
            if self._given_up >= max(3, self.config.concurrency):
                raise DownError(
                    f"{said}. {self._given_up} requests in a row were given up, so the work stops here; run again when the "
                    "endpoint answers: what is answered is not paid again."
                )
        raise RowError("no_answer", said)

    def _pause(self, number: int, after: float | None) -> None:
        """Wait after a failed try: exponentially longer, with full jitter, and no less than the endpoint asked for."""
        most = min(self.config.backoff_max_s, self.config.backoff_s * 2**number)
        seconds = random.uniform(0, most)
        if after is not None:
            self.limits.hold(min(after, self.config.retry_after_max_s))  # this thread as well, before its next try
        self.limits.sleep(seconds)

    def _try(self, key: str, data: bytes, one: _Try) -> Reply:
        """Send a request once; its answer is on disk before its price is settled."""
        self.purse.reserve(one.most)
        admitted = False
        try:
            self.limits.admit(one.tokens)
            admitted, one.begin = True, time.monotonic()
            one.name = self.cache.send(key, one.most)
            self._count("requests")
            reply = self._read(self._send(data, one), one)
            self._count("answers")
            self.cache.put(key, reply, one.cost)
            one.answered = True
            return reply
        finally:
            if admitted:
                self.limits.settle(one.tokens, one.used)
            if one.name and not one.answered:
                self.cache.lose(key, one.cost, one.certain)
            self.purse.settle(one.most, one.cost)

    def _send(self, data: bytes, one: _Try) -> bytes:
        """Return the body of a good answer; raise what any other means."""
        where, headers = f"{self.config.base_url}/chat/completions", {"Idempotency-Key": one.name}
        try:
            with self._http.stream("POST", where, content=data, headers=headers) as response:
                good = response.is_success
                if good:
                    one.may_be_paid()
                body = self._body(response, good, one.begin)
                # 409: one of the same key is still being answered
                one.certain = response.status_code != 409
        except httpx2.InvalidURL as error:
            raise EndpointError(f"base_url {self.config.base_url!r} is no URL: {wrong(error)}.") from None
        except httpx2.TransportError as error:
            if not isinstance(error, _NOT_SENT):
                one.may_be_paid()
            # without the cause: it holds the request, and that the key
            raise _TryAgain(self._clean(f"{type(error).__name__}: {wrong(error)}")) from None
        if not good:
            self._refuse(response, body)
        return body

    def _body(self, response: httpx2.Response, good: bool, begin: float) -> bytes:
        """Read a body, as far as it may go and for as long as it may take."""
        if response.headers.get("content-encoding", "identity") not in ("identity", ""):
            raise _TryAgain("its answer is compressed, which was not asked for")
        most, body = self.config.max_response_bytes if good else 1 << 16, bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if time.monotonic() - begin > self.config.timeout_s:
                raise _TryAgain(f"its answer was not whole after timeout_s={self.config.timeout_s:g}")
            if len(body) > most:
                if not good:
                    break
                raise RowError("oversize_answer", f"the answer has more than max_response_bytes={most:,}")
        # an endpoint may say the key back
        return bytes(body).replace(self._key.encode(), b"***") if self._key else bytes(body)

    def _refuse(self, response: httpx2.Response, body: bytes) -> None:
        """Raise what an answer means that is none."""
        status, told = response.status_code, self._clean(error_text(body))
        said = f"{self.config.base_url} answers {status}"
        if status in _OF_THE_ROW:
            raise RowError("bad_request", f"{said}: {told}")
        if 300 <= status < 400:
            place = self._clean(response.headers.get("location", "nowhere"))
            raise EndpointError(
                f"{said} and leads to {place!r:.300}; redirects are not followed. Is that the base_url?"
            )
        # OpenAI says so of an account without money: no pause helps
        if (status in _RETRIED and error_code(body) != "insufficient_quota") or status >= 500:
            raise _TryAgain(f"{status}: {told}", _retry_after(response.headers.get("retry-after")))
        meant = _MEANT.get(status, "a client's mistake")
        raise EndpointError(f"{said}: {meant}. It says: {told}")

    def _read(self, body: bytes, one: _Try) -> Reply:
        try:
            reply = parse_reply(body)
        except BrokenReplyError as error:
            raise _TryAgain(str(error)) from None
        if reply.usage is not None:
            one.used = reply.usage.prompt + reply.usage.completion
            one.cost = self.config.cost(reply.usage.prompt, reply.usage.completion)
        self._tell(reply.usage, one.bound)
        return reply

    def _tell(self, usage: Tokens | None, bound: int) -> None:
        if usage is None:
            self._count("uncounted")
            return
        self._count("prompt_tokens", usage.prompt)
        self._count("completion_tokens", usage.completion)
        self._count("bound_tokens", bound)

    def _expected(self, bound: int) -> int:
        """Return how many tokens a request of so many at most will be: by the share that those before it were."""
        with self._lock:
            used, bounds = self.counts["prompt_tokens"] + self.counts["completion_tokens"], self.counts["bound_tokens"]
        return max(1, round(bound * used / bounds)) if bounds else bound

    def _count(self, name: str, n: int = 1) -> None:
        with self._lock:
            self.counts[name] += n

    def _clean(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header: a number, or a date of HTTP; None for neither."""
    if value is None:
        return None
    try:
        return max(0.0, float(value)) if float(value) < float("inf") else None
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, ((date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())
