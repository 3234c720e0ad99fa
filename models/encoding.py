"""Encoders by processor: the family that a processor is of says how records become tokens and pictures."""

from typing import Any, TypeVar

from ..pool.encode import Encoder
from ..pool.inputs import InputConfig
from ..pool.shown import Pictures
from ..pool.templates import TEMPLATES
from ..store.errors import InputError
from .folders import chain
from .load import load_processor, read_config
from .registry import family_of, family_of_processor

C = TypeVar("C", bound=InputConfig)


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


def with_template(config: C, folder: str) -> C:
    """Return a config that names no template with the one that its model takes then; any other as it is.

    So no model is put into another family's words because nobody thought of it.

    Raises:
        InputError: the model has none.
    """
    if "template" in config.model_fields_set:
        return config
    name = unnamed_template(folder) or config.template
    return config if name == config.template else config.model_copy(update={"template": name})


def unnamed_template(folder: str) -> str | None:
    """Return the template of a model for which none is named; None: what is wrong with its folder is said by who loads it.

    Raises:
        InputError: the model has none.
    """
    try:
        family = family_of(read_config(chain(folder)[-1]))
    except InputError:
        return None
    return family.unnamed or default_template(folder)


def refuse_words(where: str, template: str, folder: str) -> None:
    """Refuse a recipe's template for a model of another family than LLaVA, whose published recipes name LLaVA's.

    Raises:
        InputError: it is another than the model's; `plain` is nobody's, and goes with all.
    """
    if template == "plain" or template not in TEMPLATES:
        return
    own = unnamed_template(folder)
    if own in (None, "v1", template):
        return
    raise InputError(
        f"{where} names template {template!r}, which is LLaVA's, and with the model in {folder!r} goes {own!r}: name one "
        f"beside the recipe, as `--set template={own}` (in a run, in the recipe's section)."
    )


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
