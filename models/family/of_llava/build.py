"""A LLaVA put together from a language model's folder and a vision tower's, with a fresh connector; one whole folder.

With `mlp2x_gelu` it is a plain `LlavaForConditionalGeneration` that Hugging Face loads alone (unless the LM head has a
bias); what its class does not hold stands in config.json (`llava.py`). Local folders, safetensors, no remote code.
"""

import copy
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlavaConfig
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector
from transformers.utils import logging

from ....store.config import Config
from ....store.errors import InputError
from ....store.files import whole_folder
from ....store.reading import with_fields, wrong
from ...folders import LOCAL, find_folder, read_object
from ...hub import fetching
from ...specs import ConnectorSpec
from ...tensors import header
from .connectors import make_connector
from .llms import fitting_template
from .model import class_of, feature_width
from .pictures import count_image_tokens
from .processor import image_processor, make_processor
from .towers import RGB, Tower, tower_of


class BuildConfig(Config):
    """The components of a LLaVA."""

    llm: str = Field(description="The language model's folder.")
    tower: str = Field(description="The vision tower's folder.")
    connector: ConnectorSpec = Field(ConnectorSpec(), description="What joins them.")
    feature_layer: int | None = Field(None, description="The tower's hidden state that is read; null: its entry's own.")
    image_size: int | None = Field(None, ge=8, description="In pixels, for towers that take several (DINOv2).")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="What the weights are written in.")
    seed: int = Field(0, description="Draws the connector.")


@dataclass(frozen=True)
class Built:
    """What was made: its folder, the template that goes with it, tokens per picture, and the tokenizer's new tokens.

    `plain`: Hugging Face loads it alone.
    """

    path: str
    template: str
    image_tokens: int
    added: list[str]
    plain: bool


@torch.no_grad()
def build(config: BuildConfig, out: str) -> Built:
    """Write the LLaVA of these components to `out`, its processor included.

    Raises:
        InputError: `out` exists, a folder does not hold what it should, or the components do not go together.
    """
    if Path(out).exists():
        raise InputError(f"{out!r} is there already; give another folder.")
    folders = {
        "llm": _component_folder(config.llm, "language model"),
        "tower": _component_folder(config.tower, "vision tower"),
    }
    config = config.model_copy(update=folders)
    vision, tower = _tower_config(config.tower)
    tokenizer, added = _tokenizer(config.llm)
    images = _images(config, vision, tower)
    llm = _language_model(config, tokenizer)
    eyes = _loaded(MODEL_MAPPING[type(vision)], config.tower, config.dtype, towers=True)
    processor = make_processor(images, tokenizer, tower, vision.patch_size, config.connector)
    llava_config = _config(config, llm, eyes, processor)
    model = _put_together(llava_config, llm, eyes, config)
    with whole_folder(out) as temporary:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
    plain = class_of(llava_config).__name__ == "LlavaForConditionalGeneration"
    return Built(out, fitting_template(llm.config, tokenizer), count_image_tokens(processor), added, plain)


def _config(config: BuildConfig, llm: Any, eyes: Any, processor: Any) -> LlavaConfig:
    tower, head = tower_of(eyes.config), llm.get_output_embeddings()
    more: dict[str, Any] = {"head_bias": True} if head.bias is not None else {}
    if not config.connector.plain:
        more["connector"] = config.connector.model_dump(exclude_none=True)
    layer = tower.layer if config.feature_layer is None else config.feature_layer
    count = eyes.config.num_hidden_layers + 1
    if not -count <= layer < count:
        raise InputError(f"feature_layer {layer}: the tower has hidden states 0 to {count - 1}, or {-count} to -1.")
    return LlavaConfig(
        # copies: the components' own objects go on saying how each computes its attention
        vision_config=copy.deepcopy(eyes.config),
        text_config=copy.deepcopy(llm.config),
        image_token_index=processor.image_token_id,
        image_seq_length=count_image_tokens(processor),
        vision_feature_select_strategy=tower.strategy,
        vision_feature_layer=layer,
        projector_hidden_act="gelu",
        tie_word_embeddings=bool(llm.config.tie_word_embeddings),
        dtype=config.dtype,
        **more,
    )


def _put_together(llava_config: LlavaConfig, llm: Any, eyes: Any, config: BuildConfig) -> Any:
    """Return the model; it takes over the components' own modules, so nothing is held twice."""
    inputs, outputs = feature_width(llava_config), llm.config.hidden_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        std = getattr(llm.config, "initializer_range", 0.02)
        connector = make_connector(config.connector, inputs, outputs, std)
    if config.connector.plain:  # the same numbers in Hugging Face's own module
        drawn, connector = connector.state_dict(), LlavaMultiModalProjector(llava_config)
        connector.load_state_dict(drawn)
    ids_1T = torch.arange(1, 9)[None]
    expected = llm(input_ids=ids_1T, use_cache=False).logits
    with torch.device("meta"):
        model = class_of(llava_config)(llava_config)
    mine, theirs = type(model.model.language_model).__name__, type(llm.base_model).__name__
    if mine != theirs:
        raise InputError(f"{config.llm!r}: its decoder is a {theirs}; a LLaVA would run it as {mine}.")
    model.model.language_model, model.model.vision_tower, model.lm_head = llm.base_model, eyes, llm.lm_head
    model.model.multi_modal_projector = connector.to(eyes.dtype)
    model.generation_config = llm.generation_config
    got = model.eval()(input_ids=ids_1T, use_cache=False).logits
    if not torch.allclose(got, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
        raise InputError(
            f"{config.llm!r} ({llm.config.model_type}) does more to its logits than an LM head (scaling, a soft cap); "
            "Hugging Face's LLaVA does not, so it cannot be built in."
        )
    return model


def _language_model(config: BuildConfig, tokenizer: Any) -> Any:
    llm = _loaded(AutoModelForCausalLM, config.llm, config.dtype)
    head = llm.get_output_embeddings()
    takes = "inputs_embeds" in inspect.signature(llm.forward).parameters
    if not takes or not all(hasattr(llm.base_model, name) for name in ("layers", "embed_tokens")):
        raise InputError(
            f"{config.llm!r} is a {llm.config.model_type!r} model, which takes no inputs_embeds or has no `layers` and "
            "`embed_tokens`: pictures could not be put into it. Take a LLaMA, Mistral, Qwen, Phi, Gemma or StableLM."
        )
    if type(head) is not nn.Linear or getattr(llm, "lm_head", None) is not head:
        raise InputError(f"{config.llm!r}: its LM head is no `lm_head` of type Linear, which a LLaVA needs.")
    _resize(llm, len(tokenizer))
    llm.config.pad_token_id = tokenizer.pad_token_id
    llm.generation_config.pad_token_id = tokenizer.pad_token_id
    return llm.eval()


def _resize(llm: Any, words: int) -> None:
    """Make room for new tokens: rows up to a multiple of 64, each the mean of those before.

    Hugging Face's converter draws its own closely around that mean (spec: LLaVA §9).
    """
    before = llm.get_input_embeddings().weight.shape[0]
    if words <= before:
        return
    llm.resize_token_embeddings(words, pad_to_multiple_of=64, mean_resizing=False)
    head = llm.get_output_embeddings()
    for rows in (llm.get_input_embeddings().weight, head.weight, head.bias):
        if rows is not None:
            rows[before:] = rows[:before].float().mean(0).to(rows.dtype)


def _tokenizer(folder: str) -> tuple[Any, list[str]]:
    """Return the language model's tokenizer with `<image>` and a pad token, and which of them are new."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
    except Exception as error:  # the tokenizers library raises bare ones
        raise InputError(f"{folder!r} has no usable tokenizer: {wrong(error)}.") from error
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(f"{folder!r}: its tokenizer is slow; label masks need a fast one (tokenizer.json).")
    known = tokenizer.get_vocab()
    if tokenizer.pad_token_id is None:
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"]}, replace_extra_special_tokens=False)
    tokenizer.padding_side = "right"
    return tokenizer, [t for t in tokenizer.get_vocab() if t not in known]


def _tower_config(folder: str) -> tuple[Any, Tower]:
    whole_config = _read_config(folder)
    vision = getattr(whole_config, "vision_config", whole_config)  # of a model of pictures and texts, its vision side
    return vision, tower_of(vision)


def _images(config: BuildConfig, vision: Any, tower: Tower) -> Any:
    file = Path(config.tower, "preprocessor_config.json")
    told = read_object(file) if file.is_file() else {}
    kinds = {"image_mean": RGB | None, "image_std": RGB | None}
    told = with_fields(told, kinds, str(file), "image processor's settings")
    colours: tuple[RGB, RGB] = told["image_mean"] or tower.colours[0], told["image_std"] or tower.colours[1]
    side = config.image_size or vision.image_size
    if side != vision.image_size and not tower.flexible:
        raise InputError(f"image_size {side}: this tower takes {vision.image_size} pixels alone.")
    if side % vision.patch_size:
        raise InputError(f"image_size {side} is no multiple of the tower's patches of {vision.patch_size} pixels.")
    return image_processor(side, colours)


def _loaded(kind: Any, folder: str, dtype: str, towers: bool = False) -> Any:
    """Load one component; a tower's folder may hold a text side, whose weights are left out."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # of a text side it prints a table; what matters is in `info`
    try:
        model, info = kind.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            **LOCAL,
        )
    except Exception as error:  # what its classes say to settings and weights that they cannot take is of any kind
        raise InputError(f"{folder!r} cannot be loaded: {type(error).__name__}: {wrong(error)}.") from error
    finally:
        logging.set_verbosity(level)
    keys = ("missing_keys", "mismatched_keys") if towers else ("missing_keys", "mismatched_keys", "unexpected_keys")
    unfit = {k: sorted(info[k])[:5] for k in keys if info.get(k)}
    if unfit:
        raise InputError(f"{folder!r}: its weights do not fit a {type(model).__name__}: {unfit}.")
    return model


def _read_config(folder: str) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, **LOCAL)
    except Exception as error:  # its fields are checked by classes with errors of their own
        raise InputError(f"{folder!r}: its config.json cannot be read: {wrong(error)}.") from error


def _component_folder(name: str, what: str) -> str:
    """Return the folder of a component: a local one, or a hub's name in Hugging Face's cache."""
    folder = find_folder(name)
    if folder is None or not (folder / "config.json").is_file():
        hint = fetching(name) if folder is None else ""
        raise InputError(f"{name!r} is no {what}'s folder: there is no config.json.{hint}")
    read_object(folder / "config.json")
    for file in sorted(folder.glob("*.safetensors")):
        header(file)
    return str(folder)
