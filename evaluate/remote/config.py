"""What an OpenAI-compatible endpoint is asked with: where it is, what it may cost, how patient its client is."""

import ipaddress
import os
import re
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import ConfigDict, Field, field_validator, model_validator

from ...store.config import Config
from ...store.errors import InputError

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
# what the client says itself, or cannot read the answer to
_OWN = frozenset(
    {
        "model",
        "messages",
        "stream",
        "stream_options",
        "n",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
    }
    | {"seed", "stop", "tools", "functions"}
)


class RemoteSampling(Config):
    """How an answer is drawn. What is null is not sent: the endpoint's own default holds."""

    max_tokens: int = Field(
        1024, ge=1, le=1_000_000, description="Tokens of an answer at most; a longer one is refused."
    )
    temperature: float | None = Field(None, ge=0, le=2, description="0 is greedy.")
    top_p: float | None = Field(None, gt=0, le=1, description="Draw from the likeliest tokens of this share.")
    seed: int | None = Field(None, description="For endpoints that know one; most promise nothing.")
    stop: tuple[str, ...] = Field((), description="Texts at which an answer ends.")


class EndpointConfig(Config):
    """An OpenAI-compatible endpoint (`BASE_URL/chat/completions`): OpenAI's own, vLLM, SGLang, llama.cpp and others."""

    # a key that was put into the wrong field is no part of an error
    model_config = ConfigDict(hide_input_in_errors=True)

    base_url: str = Field(
        description="Where it is, with /v1 if it has one: https://HOST/v1.", examples=["http://127.0.0.1:8000/v1"]
    )
    model: str = Field(min_length=1, description="The model's name, as the endpoint knows it.")
    api_key_env: str | None = Field(
        None,
        description="The NAME of the environment variable that holds the key, in capitals; null where none is asked.",
    )
    timeout_s: float = Field(
        120, gt=0, le=3600, description="Seconds that one try may take, the whole answer included."
    )
    concurrency: int = Field(16, ge=1, le=1024, description="Requests under way at a time.")
    requests_per_minute: float | None = Field(None, gt=0, description="The endpoint's limit; tries count, too.")
    tokens_per_minute: float | None = Field(
        None, gt=0, description="The endpoint's limit, prompts and answers together."
    )
    price_in: float = Field(0, ge=0, description="Money per million tokens of prompts.")
    price_out: float = Field(0, ge=0, description="Money per million tokens of answers.")
    max_cost: float | None = Field(
        None,
        gt=0,
        description="Money that may be spent on what is in one cache, over all runs; work stops before it is passed.",
    )
    image_tokens: int = Field(
        1600, ge=0, description="Tokens that a picture is counted as until the endpoint says what it was."
    )
    max_tries: int = Field(6, ge=1, le=100, description="Tries of one request before its row is given up.")
    backoff_s: float = Field(
        1, gt=0, le=600, description="Seconds waited at most after the first failed try; doubles with each."
    )
    backoff_max_s: float = Field(60, gt=0, le=3600, description="Seconds waited at most after any try.")
    retry_after_max_s: float = Field(
        300, ge=0, le=86400, description="Seconds waited at most when the endpoint asks for a pause (Retry-After)."
    )
    under_way: Literal["retry", "skip"] = Field(
        "retry",
        description="What was under way when a run was killed, and may be paid: ask again, under the same Idempotency-Key "
        "(an endpoint that honours it charges once), or leave its row out.",
    )
    max_response_bytes: int = Field(4 << 20, ge=1024, description="Bytes of an answer at most; more of it is not read.")
    length_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="How the endpoint calls an answer's length; OpenAI's newer models want the second."
    )
    allow_http: bool = Field(
        False, description="Send prompts and key unencrypted to another machine: for a network of your own."
    )
    extra: dict[str, Any] = Field({}, description="Further fields of each request's body, as the endpoint knows them.")

    @model_validator(mode="before")
    @classmethod
    def _no_secrets(cls, values: Any) -> Any:
        """Refuse what may hold a key; as a whole, so that no error shows it."""
        if not isinstance(values, dict):
            return values
        name, url = values.get("api_key_env"), values.get("base_url")
        if name is not None and not (isinstance(name, str) and _VARIABLE.fullmatch(name)):
            raise ValueError(
                "api_key_env is no NAME of an environment variable (capitals, digits, _). If it is the key itself, put "
                "that into a variable, and name the variable here"
            )
        if isinstance(url, str) and re.search(r"[@?#\s\x00-\x1f]", url):
            raise ValueError(
                "base_url holds a user, a password, a query or a space (it is not shown). Give https://HOST/v1 alone, and "
                "the key by api_key_env"
            )
        return values

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        parts = _split(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("is no http or https URL with a host")
        if parts.path.rstrip("/").endswith("/completions"):
            raise ValueError("ends in /completions, which the client adds itself; end it before /chat")
        return url.rstrip("/")

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, Any]) -> dict[str, Any]:
        clash = sorted(_OWN & extra.keys())
        if clash:
            raise ValueError(f"{', '.join(clash)}: fields of their own set these, or their answers are not read")
        return extra

    @model_validator(mode="after")
    def _consistent(self) -> "EndpointConfig":
        if not self.allow_http and _split(self.base_url).scheme == "http" and not self.loopback:
            raise ValueError(
                "base_url is plain http to another machine: anyone between could read prompts and key. Use https, or "
                "set allow_http=true on a network of your own"
            )
        if self.max_cost is not None and not (self.price_in or self.price_out):
            raise ValueError("max_cost limits nothing without prices: set price_in and price_out")
        return self

    @property
    def loopback(self) -> bool:
        """Whether the endpoint is on this machine."""
        host = _split(self.base_url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """Return what a request costs, in money."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6

    def key(self) -> str | None:
        """Return the key from the environment; keep it out of whatever is written.

        Raises:
            InputError: the variable is not set, or holds what no header can.
        """
        if self.api_key_env is None:
            return None
        value = os.environ.get(self.api_key_env, "").strip()
        if not value:
            raise InputError(
                f"the environment variable {self.api_key_env!r} is not set, or empty: it should hold the key."
            )
        if not re.fullmatch(r"[\x21-\x7e]+", value):
            raise InputError(
                f"the environment variable {self.api_key_env!r} holds spaces or other characters that no key has."
            )
        return value


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # read late, and wrong for some texts
    except ValueError as error:
        raise ValueError(f"is no URL ({error})") from error
    return parts
