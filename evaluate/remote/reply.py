"""What an endpoint is sent and what it answers, as plain values; what of an answer cannot be used, and why."""

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Literal

from ...pool.refusals import IMAGE
from ...store.errors import InputError
from ...store.reading import FOREIGN, shown, wrong
from .config import EndpointConfig, RemoteSampling

# why an answer that came is refused; it is kept all the same
REFUSALS = {
    "cut_by_length": "the answer reached max_tokens and is not whole",
    "content_filter": "the endpoint's filter held the answer back",
    "declined": "the model declined to answer",
    "empty_answer": "the answer has no text",
    "bad_text": "the answer holds characters that UTF-8 cannot (lone surrogates)",
}
# why a row has no answer
FAILURES = {
    "bad_request": "the endpoint refused the request itself",
    "no_answer": "no try brought an answer",
    "under_way": "it was under way when a run was killed, and may be paid (endpoint.under_way=retry asks again)",
    "oversize_answer": "the answer has more than max_response_bytes",
}
# more than any usage can say; a count beyond it is none
_MOST_TOKENS = 1 << 40


class BrokenReplyError(InputError):
    """The endpoint's answer is no chat completion."""


@dataclass(frozen=True)
class Message:
    """One turn of a prompt. `images`: data URIs (`data:image/jpeg;base64,…`), which come before the text."""

    role: Literal["system", "user", "assistant"]
    text: str
    images: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for uri in self.images:
            if not uri.startswith("data:image/"):
                raise InputError(f"a picture goes to an endpoint as a data URI, not as {shown(uri)}.")

    def plain(self) -> dict[str, Any]:
        """Return it as the endpoint reads it."""
        if not self.images:
            return {"role": self.role, "content": self.text}
        parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": uri}} for uri in self.images]
        return {"role": self.role, "content": [*parts, {"type": "text", "text": self.text}]}


@dataclass(frozen=True)
class Question(Message):
    """A turn whose text holds `<image>` where each picture stands; its parts keep that order."""

    def plain(self) -> dict[str, Any]:
        """Return it as the endpoint reads it: without the marks, and without white space around them.

        Raises:
            InputError: another number of marks than of pictures.
        """
        texts = self.text.split(IMAGE)
        if len(texts) != len(self.images) + 1:
            raise InputError(f"the text has {len(texts) - 1} marks {IMAGE} for {len(self.images)} pictures.")
        if not self.images:
            return {"role": self.role, "content": self.text}
        parts: list[dict[str, Any]] = []
        for text, uri in zip(texts, (*self.images, ""), strict=True):
            parts += [{"type": "text", "text": text.strip()}] if text.strip() else []
            parts += [{"type": "image_url", "image_url": {"url": uri}}] if uri else []
        return {"role": self.role, "content": parts}


@dataclass(frozen=True)
class Tokens:
    """What the endpoint counted of a request."""

    prompt: int
    completion: int


@dataclass(frozen=True)
class Reply:
    """An answer that came. `usage` is None where the endpoint counts nothing."""

    text: str
    finish_reason: str | None = None
    usage: Tokens | None = None
    model: str = ""

    @property
    def refused(self) -> str | None:
        """Why it cannot be used (a key of `REFUSALS`); None for an answer as it should be."""
        reasons = {"length": "cut_by_length", "content_filter": "content_filter", "refusal": "declined"}
        if self.finish_reason in reasons:
            return reasons[self.finish_reason]
        if not self.text.strip():
            return "empty_answer"
        try:
            self.text.encode()
        except UnicodeEncodeError:
            return "bad_text"
        return None

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it; `Reply.read` is the way back."""
        return asdict(self)

    @classmethod
    def read(cls, values: dict[str, Any]) -> "Reply":
        """Return what `plain` wrote."""
        return cls(**(values | {"usage": Tokens(**values["usage"]) if values["usage"] else None}))


def body_of(config: EndpointConfig, messages: list[Message], sampling: RemoteSampling) -> dict[str, Any]:
    """Return the body of a request: all that its answer follows from, and nothing else."""
    chosen = {n: v for n, v in sampling.model_dump().items() if n != "max_tokens" and v not in (None, ())}
    chosen |= {"stop": list(sampling.stop)} if sampling.stop else {}
    named = {"model": config.model, "messages": [m.plain() for m in messages]}
    return named | chosen | {config.length_field: sampling.max_tokens} | config.extra


def request_key(body: dict[str, Any]) -> str:
    """Return the sha256 of a body in canonical JSON. The URL is no part of it: a server that moved answers as before."""
    return sha256(json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


def most_tokens(config: EndpointConfig, messages: list[Message]) -> int:
    """Return how many tokens a prompt has at most: no token is less than a byte; pictures as the config counts them."""
    texts = sum(len(m.text.encode(errors="replace")) + 16 for m in messages)
    return texts + config.image_tokens * sum(len(m.images) for m in messages)


def parse_reply(data: bytes) -> Reply:
    """Return the first choice of a chat completion.

    Raises:
        BrokenReplyError: it is no JSON, or not of that form.
    """
    try:
        values = json.loads(data)
    except FOREIGN as error:
        raise BrokenReplyError(f"its answer is no JSON: {wrong(error)}") from error
    if isinstance(values, dict) and values.get("error") and not values.get("choices"):
        raise BrokenReplyError(f"it answers with an error: {error_text(data)}")
    choices = values.get("choices") if isinstance(values, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise BrokenReplyError(f"its answer is no chat completion: {shown(values)}")
    text, ended = _text(message.get("content")), choice.get("finish_reason")
    if text is None or not isinstance(ended, (str, type(None))):
        raise BrokenReplyError(f"its answer has no text: {shown(choice)}")
    declined = message.get("refusal")
    if isinstance(declined, str) and declined and not text:
        text, ended = declined, "refusal"
    model = values.get("model")
    return Reply(text, ended, _usage(values.get("usage")), model if isinstance(model, str) else "")


def error_text(data: bytes) -> str:
    """Return what an endpoint says of an error, in one short line, whatever form it has."""
    try:
        values = json.loads(data)
    except FOREIGN:
        return shown(" ".join(data[:2000].decode(errors="replace").split())[:200])
    told = values.get("error", values) if isinstance(values, dict) else values
    told = next((told[n] for n in ("message", "detail") if n in told), told) if isinstance(told, dict) else told
    return " ".join(told.split())[:300] if isinstance(told, str) else shown(told)


def error_code(data: bytes) -> str:
    """Return the code that OpenAI's form of an error has, or ""."""
    try:
        code = json.loads(data)["error"]["code"]
    except FOREIGN:
        return ""
    return code if isinstance(code, str) else ""


def _text(content: Any) -> str | None:
    """Return a message's text; null is an empty one, and some servers send it in parts."""
    if content is None:
        return ""
    if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        return "".join(p["text"] for p in content)
    return content if isinstance(content, str) else None


def _usage(values: Any) -> Tokens | None:
    counts = [values.get(n) for n in ("prompt_tokens", "completion_tokens")] if isinstance(values, dict) else []
    if not counts or any(type(n) is not int or not 0 <= n < _MOST_TOKENS for n in counts):
        return None
    return Tokens(*counts)
