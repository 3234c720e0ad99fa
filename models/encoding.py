"""Encoders by processor: the family that a processor is of says how records become tokens and pictures."""

from typing import Any

from ..pool.encode import Encoder
from ..pool.shown import Pictures
from .folders import chain
from .load import load_processor, read_config
from .registry import family_of, family_of_processor


def make_encoder(
    processor: Any,
    template: str = "v1",
    max_len: int = 2048,
    image_mode: str = "pad",
    pictures: Pictures = "white",
) -> Encoder:
    """Return the encoder of a processor's records; `max_len` in tokens, image tokens included.

    Raises:
        InputError: unknown template, image mode or way to show pictures, a tokenizer without the template's special
            tokens, or a processor that would encode wrongly without a word.
    """
    return family_of_processor(processor).encoder(processor, (template, max_len, image_mode), pictures)


def encoder_of(folder: str, template: str | None = None, max_len: int = 2048) -> Encoder:
    """Return the encoder of a checkpoint's folder, with the template that goes with it unless one is named.

    Raises:
        InputError: as `make_encoder`, or no checkpoint there.
    """
    return make_encoder(load_processor(folder), template or default_template(folder), max_len)


def default_template(folder: str) -> str:
    """Return the conversation template that goes with a checkpoint's decoder and tokenizer.

    Raises:
        InputError: no checkpoint there, or it has no usable processor.
    """
    config = read_config(chain(folder)[-1])
    return family_of(config).template(config, load_processor(folder).tokenizer)
