"""How lmms-eval has a checkpoint of ours answer: what stands in its `--model_args`."""

from typing import Literal

from pydantic import Field

from ...store.usage import MAX_REFUSED
from ..talk_config import TalkConfig

# of lmms-eval's own LLaVA, where a task names no length
_LONGEST = 1024


class LmmsConfig(TalkConfig):
    """A model that lmms-eval asks; `batch_size`, `max_batch_size` and `device` are its own options, the rest model_args."""

    batch_size: int | Literal["auto"] = Field(
        "auto", description="The most rows of a batch; auto is `max_batch_size`. lmms-eval's own default is 1."
    )
    max_batch_size: int = Field(64, ge=1, description="The most rows of a batch where batch_size is auto.")
    token_budget: int = Field(
        16_384, ge=1, description="The size of a batch: rows × (longest prompt + longest answer), in tokens."
    )
    max_new_tokens: int = Field(_LONGEST, ge=1, description="The longest answer where a task names no length.")
    seed: int = Field(0, description="Of the draws, where a task samples; each request has a stream of its own.")
    clusters: str | None = Field(
        None,
        description="A file that is to say which picture each document shows, for `vinnow import-lmms --clusters`.",
    )
    max_refused: float = Field(
        MAX_REFUSED,
        ge=0,
        le=1,
        description="The share of requests that may turn out unusable; each is told, and answered with an empty text.",
    )

    @property
    def rows(self) -> int:
        """The most rows of a batch."""
        return self.max_batch_size if self.batch_size == "auto" else max(1, self.batch_size)
