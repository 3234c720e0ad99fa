"""What instruction data is generated from, by whom, and what of it is kept."""

from typing import Literal

from pydantic import ConfigDict, Field, field_validator

from ...evaluate.remote.config import EndpointConfig, RemoteSampling
from ...store.config import Config
from ...store.usage import MAX_REFUSED

KINDS = ("conversation", "detail", "reasoning")
Kind = Literal["conversation", "detail", "reasoning"]
# pictures of each kind, in thousands, in the data that LLaVA was first tuned on
LLAVA_MIX: dict[Kind, float] = {"conversation": 58, "detail": 23, "reasoning": 77}


class GenerateConfig(Config):
    """Instruction data about pictures, from their captions and boxes, by a language model that never sees them."""

    # the endpoint's section may hold a key in the wrong field
    model_config = ConfigDict(hide_input_in_errors=True)

    kind: Literal["conversation", "detail", "reasoning", "mix"] = Field(
        description="What is asked of each picture; mix: one kind a picture, by `mix`.", examples=["mix"]
    )
    source: str = Field(
        description="COCO's captions JSON, or a table (Parquet, JSON, JSONL) of image, width, height, captions, boxes.",
        examples=["captions_train2017.json"],
    )
    endpoint: EndpointConfig = Field(description="Who is asked.")
    sampling: RemoteSampling = Field(RemoteSampling(max_tokens=1536), description="How its answers are drawn.")
    instances: str | None = Field(None, description="COCO's instances JSON: the boxes for detail and reasoning.")
    image_prefix: str = Field("", description="Put before each picture's name in the records: coco/train2017/.")
    mix: dict[Kind, float] = Field(
        LLAVA_MIX, description="Pictures of each kind, as shares of any sum; the default is LLaVA-Instruct-158K's."
    )
    limit: int | None = Field(
        None, ge=1, description="Pictures at most, drawn by the seed; a larger limit keeps those of a smaller one."
    )
    seed: int = Field(0, description="Draws pictures, their kinds and the questions for a detailed description.")
    prompts: str | None = Field(
        None, description="A folder of your own prompts, laid out as `pipelines/generate/prompts/`; null: those."
    )
    max_boxes: int = Field(60, ge=1, description="Boxes shown of a picture at most, the largest; others are counted.")
    words: dict[Kind, tuple[int, int]] = Field(
        {"conversation": (1, 250), "detail": (40, 600), "reasoning": (20, 600)},
        description="Words of an answer, at least and at most, by kind; other records are refused. A kind left out: any.",
    )
    max_refused: float = Field(
        MAX_REFUSED, ge=0, le=1, description="The share of prompts that may end without a record; more is an error."
    )

    @field_validator("mix")
    @classmethod
    def _some(cls, mix: dict[Kind, float]) -> dict[Kind, float]:
        if not all(0 <= share < 1e9 for share in mix.values()) or not sum(mix.values()):
            raise ValueError("wants shares of 0 and more, one of them above 0")
        return mix

    @field_validator("words")
    @classmethod
    def _ranges(cls, words: dict[Kind, tuple[int, int]]) -> dict[Kind, tuple[int, int]]:
        wrong = [kind for kind, (least, most) in words.items() if not 1 <= least <= most]
        if wrong:
            raise ValueError(f"{wrong[0]} wants two numbers, the first at least 1 and no more than the second")
        return words

    def shares(self) -> dict[Kind, float]:
        """Return the kinds that are asked for, with their shares, which sum up to 1."""
        asked = self.mix if self.kind == "mix" else {self.kind: 1.0}
        total = sum(asked.values())
        return {kind: asked[kind] / total for kind in KINDS if asked.get(kind)}
