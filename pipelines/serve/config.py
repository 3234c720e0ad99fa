"""What `vinnow serve` serves, where it listens, and how much one request and all of them together may take."""

import ipaddress
import os
from pathlib import Path

from pydantic import Field

from ...evaluate.talk_config import TalkConfig
from ...store.errors import InputError

# of an API key: fewer could be guessed
KEY_LENGTH = 16


class ServeConfig(TalkConfig):
    """A model behind an OpenAI-compatible endpoint, and its limits."""

    name: str = Field("", description="What requests call the model; empty is its folder's name.")
    host: str = Field("127.0.0.1", description="Where it listens; another machine reaches it only with an API key.")
    port: int = Field(8000, ge=0, le=65535, description="Its port; 0 takes one that is free.")
    api_key_env: str | None = Field(
        None, description="The NAME of the environment variable that holds the key which each request must bring."
    )
    image_root: str | None = Field(None, description="Pictures below this folder may be asked for as file:// URLs.")
    replicas: int = Field(1, ge=1, le=64, description="Copies of the model, one a GPU; on a CPU they share its cores.")
    max_batch: int = Field(16, ge=1, le=1024, description="Requests that one copy answers together.")
    max_batch_tokens: int = Field(
        32_768, ge=1, description="Rows × (longest prompt + longest answer) of a batch at most; one row always fits."
    )
    max_wait_ms: float = Field(10, ge=0, le=10_000, description="How long a batch that is not full waits for more.")
    max_requests: int = Field(
        64, ge=1, le=65536, description="Requests under way, those that wait included; one more is sent away (429)."
    )
    max_body_bytes: int = Field(
        20_000_000, ge=1024, description="Bytes of one request; eight of the largest at a time."
    )
    max_characters: int = Field(200_000, ge=1, description="Characters of one request's texts together.")
    max_pictures: int = Field(8, ge=0, le=1024, description="Pictures in one request.")
    max_pixels: int = Field(25_000_000, ge=1, description="Pixels of one picture.")
    max_new_tokens: int = Field(1024, ge=1, description="The longest answer, in tokens; also where none is asked for.")
    request_seconds: float = Field(300, gt=0, le=86_400, description="How long one request may take, waiting included.")
    drain_seconds: float = Field(
        60, ge=0, le=86_400, description="After SIGTERM: how long what was accepted has to be answered."
    )
    decoders: int = Field(2, ge=1, le=64, description="Requests whose pictures are decoded at a time.")

    @property
    def served(self) -> str:
        """The model's name in requests."""
        return self.name or Path(self.model).resolve().name

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.host)

    def key(self) -> str | None:
        """Return the API key; None where none is asked.

        Raises:
            InputError: the variable is not set or too short, or another machine could ask without a key.
        """
        if self.api_key_env is None:
            if not self.is_local:
                raise InputError(
                    f"host {self.host!r} is reached from other machines: name the environment variable that holds an API "
                    "key (--api-key-env NAME), or listen on 127.0.0.1."
                )
            return None
        key = os.environ.get(self.api_key_env, "")
        if len(key) < KEY_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
            raise InputError(
                f"the environment variable {self.api_key_env!r} must hold an API key of at least {KEY_LENGTH} printable "
                "ASCII characters without spaces."
            )
        return key


def is_loopback(host: str) -> bool:
    """Say whether a host's name or address is this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
