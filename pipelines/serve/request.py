"""The body of a chat completion → what is asked of the model. A field that would be ignored is refused by name."""

from dataclasses import dataclass
from typing import Any

from ...evaluate.generator import Turn
from ...evaluate.sampling import Sampling
from ...store.errors import InputError, KeyTwiceError, suggest
from ...store.reading import parse_json, shown
from .config import ServeConfig
from .errors import ApiError, refused

MARK = "<image>"
# read below
_USED = {"model", "messages", "stream", "stream_options", "temperature", "top_p", "top_k", "seed", "stop"}
_USED |= {"max_tokens", "max_completion_tokens"}
# fields that have no say in the answer
_HARMLESS = {"user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"}
# fields that are taken where they ask for what is done anyway; null is one, too
_PLAIN: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "store": (False,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "echo": (False,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (False, True),
    "functions": ([],),
    "function_call": ("none", "auto"),
}


@dataclass(frozen=True)
class Asked:
    """One request. `urls`: each picture's place in the body and its URL, in the order of the turns' marks.

    `usage`: whether a stream ends with a count of tokens.
    """

    turns: tuple[Turn, ...]
    urls: tuple[tuple[str, str], ...]
    system: str
    sampling: Sampling
    stream: bool
    usage: bool


def read_request(data: bytes, config: ServeConfig) -> Asked:
    """Return what a body asks.

    Raises:
        ApiError: 400, which names the field; 404 for another model.
    """
    body = _object(data, config)
    _check_fields(body)
    if body.get("model") != config.served:
        name = shown(body.get("model"))
        raise ApiError(404, f"model: {name} is not served here, {config.served!r} is.", "model", "model_not_found")
    stream = _flag(body, "stream")
    options = body.get("stream_options")
    if options is not None and (not stream or not isinstance(options, dict) or options.keys() - {"include_usage"}):
        raise refused("stream_options", "goes with stream: true, and holds include_usage alone.")
    system, turns, urls = _conversation(body.get("messages"), config)
    return Asked(turns, urls, system, _sampling(body, config), stream, _flag(options or {}, "include_usage"))


def _object(data: bytes, config: ServeConfig) -> dict[str, Any]:
    # parsed, an empty object takes thirty times its bytes; a picture's base64 has none of these
    if sum(data.count(mark) for mark in (b",", b"{", b"[")) > config.max_characters + 10_000:
        raise ApiError(400, "the body has more values than a chat completion.")
    try:
        body = parse_json(data, "the body", once=True)
    except KeyTwiceError as error:
        raise refused(error.key[:80], "is there twice in one object: which of the two is meant?") from error
    except InputError as error:
        raise ApiError(400, str(error)) from error
    if not isinstance(body, dict):
        raise ApiError(400, "the body is not a JSON object.")
    return body


def _check_fields(body: dict[str, Any]) -> None:
    for name, value in body.items():
        if name in _USED or name in _HARMLESS or (value is None and name in _PLAIN):
            continue
        if name not in _PLAIN:
            known = sorted(_USED | _HARMLESS | _PLAIN.keys())
            raise refused(name[:80], f"this server has no such field{suggest(name[:80], known)}", "unknown_field")
        if not any(value == plain and isinstance(value, bool) == isinstance(plain, bool) for plain in _PLAIN[name]):
            only = " or ".join(shown(plain) for plain in _PLAIN[name])
            raise refused(name, f"this server can only do {only}, and not {shown(value)}.", "unsupported_value")


def _sampling(body: dict[str, Any], config: ServeConfig) -> Sampling:
    lengths = {n for n in ("max_tokens", "max_completion_tokens") if body.get(n) is not None}
    if len(lengths) > 1:
        raise refused("max_tokens", "give it or max_completion_tokens, not both.")
    longest = _integer(body, next(iter(lengths), "max_tokens"), 1, config.max_new_tokens)
    return Sampling(
        temperature=_number(body, "temperature", 0, 2, 1.0),
        top_p=_share(body),
        top_k=_integer(body, "top_k", 0, 1 << 31) or 0,
        max_new_tokens=config.max_new_tokens if longest is None else longest,
        stop=_stops(body.get("stop")),
        seed=_integer(body, "seed", -(1 << 63), (1 << 63) - 1),
    )


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(stops, list) or len(stops) > 16 or not all(isinstance(s, str) and s for s in stops):
        raise refused("stop", "is a text, or a list of up to 16; none of them is empty.")
    if any(len(s) > 1000 for s in stops):
        raise refused("stop", "a text has more than 1000 characters.")
    return tuple(_sound(s, "stop") for s in stops)


def _share(body: dict[str, Any]) -> float:
    share = _number(body, "top_p", 0, 1, 1.0)
    if share == 0:
        raise refused("top_p", "is more than 0; temperature: 0 takes the likeliest token.")
    return share


def _number(body: dict[str, Any], name: str, low: float, high: float, default: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise refused(name, f"is a number from {low} to {high}, not {shown(value)}.")
    return float(value)


def _integer(body: dict[str, Any], name: str, low: int, high: int) -> int | None:
    value = body.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high):
        raise refused(name, f"is a whole number from {low} to {high}, not {shown(value)}.")
    return value


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise refused(name, f"is true or false, not {shown(value)}.")
    return bool(value)


def _conversation(messages: Any, config: ServeConfig) -> tuple[str, tuple[Turn, ...], tuple[tuple[str, str], ...]]:
    """Return the system text, the turns, and the pictures' URLs by their place."""
    if not isinstance(messages, list) or not messages:
        raise refused("messages", "is a list of at least one message.")
    system, turns, urls = "", list[Turn](), list[tuple[str, str]]()
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "developer", "user", "assistant"):
            raise refused(where, "is an object whose role is system, developer, user or assistant.")
        _check_message(message, where)
        text, pictures = _content(message.get("content"), f"{where}.content", role == "user")
        urls += pictures
        if role in ("system", "developer"):
            if i:
                raise refused(where, f"a {role} message stands only in front.")
            system = text
        else:
            turns.append(Turn("human" if role == "user" else "gpt", text))
            if (role == "user") != (len(turns) % 2 == 1):
                raise refused(where, "user and assistant take turns, the user first.")
    if len(turns) % 2 == 0:
        raise refused("messages", "must end with what a user says.")
    _check_sizes(system, turns, urls, config)
    return system, tuple(turns), tuple(urls)


def _check_message(message: dict[str, Any], where: str) -> None:
    # what this server's own answers hold may come back
    empty = {"refusal", "tool_calls", "audio", "function_call", "annotations"}
    for name, value in message.items():
        if name not in ("role", "content") and not (name in empty and value in (None, [])):
            raise refused(f"{where}.{name}"[:100], "this server cannot use it.", "unsupported_value")


def _check_sizes(system: str, turns: list[Turn], urls: list[tuple[str, str]], config: ServeConfig) -> None:
    if len(urls) > config.max_pictures:
        raise refused("messages", f"{len(urls)} pictures; at most {config.max_pictures} in one request.")
    characters = len(system) + sum(len(t.text) for t in turns)
    if characters > config.max_characters:
        raise refused("messages", f"{characters} characters, over {config.max_characters}.", "context_length_exceeded")
    if urls and sum(t.text.count(MARK) for t in turns if t.role == "human") != len(urls):
        raise refused("messages", f"beside pictures a user's text cannot hold {MARK!r}, which stands for a picture.")


def _content(content: Any, where: str, may_show: bool) -> tuple[str, list[tuple[str, str]]]:
    """Return a message's text, its parts joined by line breaks, behind a mark for each picture, and the pictures' URLs.

    A picture in the middle of a text moves to the front: that is how training data is read (`pool/checks.py`).
    """
    if isinstance(content, str):
        return _sound(content, where), []
    if not isinstance(content, list) or not content:
        raise refused(where, "is a text, or a list of parts.")
    texts, urls = list[str](), list[tuple[str, str]]()
    for i, part in enumerate(content):
        place = f"{where}[{i}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str) and part.keys() == {"type", "text"}:
            texts.append(_sound(part["text"], place))
        elif kind == "image_url" and may_show and part.keys() == {"type", "image_url"}:
            urls.append((place, _url(part["image_url"], place)))
        else:
            kinds = "text or image_url" if may_show else "text"
            raise refused(place, f"is no part of type {kinds} with its fields alone.")
    return f"{MARK}\n" * len(urls) + "\n".join(texts), urls


def _url(value: Any, where: str) -> str:
    if not isinstance(value, dict) or not isinstance(value.get("url"), str) or value.keys() - {"url", "detail"}:
        raise refused(where, "image_url is an object with a url.")
    if value.get("detail") not in (None, "auto"):
        raise refused(f"{where}.image_url.detail", "this server can only do 'auto'.", "unsupported_value")
    return value["url"]


def _sound(text: str, where: str) -> str:
    """Return a text that a tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise refused(where, "holds half of a surrogate pair, which is no character.") from error
    return text
