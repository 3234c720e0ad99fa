"""What a model is fed of a row: the base of every config that says so."""

from typing import Literal

from pydantic import Field, field_validator

from ..store.config import Config
from ..store.errors import suggest
from .shown import Pictures
from .templates import NAMES


class InputConfig(Config):
    """How a row becomes a model's input."""

    template: str = Field(
        "v1",
        description="The conversation template that texts are put into; `own` is the model's chat template. Left out: `v1` "
        "for a LLaVA, the one that goes with the model for any other family.",
    )
    image_mode: Literal["pad", "square"] = Field(
        "pad", description="Pictures are padded to a square, or resized and cropped to one."
    )
    pictures: Pictures = Field(
        "white",
        description="How a picture's file becomes RGB: as a viewer shows it, transparent parts on white or black, or as "
        "the published code reads it.",
    )
    max_len: int = Field(2048, ge=8, description="The longest row in tokens, image tokens included.")

    @field_validator("template")
    @classmethod
    def _known_template(cls, name: str) -> str:
        if name not in NAMES:
            raise ValueError(f"unknown template {name!r}{suggest(name, NAMES)}")
        return name
