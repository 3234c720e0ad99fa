"""The tiny model: a LLaVA of a few hundred thousand random parameters, by Hugging Face's own classes.

It stands in for CLIP-L + Vicuna, or other components (`family/`), where no weights can be fetched (tests, the demo): same
classes, same names, same processor, same files, only small. Its tokenizer is LLaMA-like (Metaspace, byte fallback), trained
on given texts, with the special tokens of its language model's template.
"""

import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from transformers import CONFIG_MAPPING, LlavaConfig, PreTrainedTokenizerFast

from ....pool.reader import Pool
from ....pool.templates import TEMPLATES
from ....store.machine import writing
from ...specs import TinyModelConfig
from .llms import LLMS
from .model import class_of
from .processor import image_processor, make_processor
from .towers import TOWERS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIALS = ("<unk>", "<s>", "</s>", "<pad>", "<image>")


def build_tiny_model(out: str, texts: Iterable[str], config: TinyModelConfig) -> str:
    """Make a tokenizer, a processor and random weights, save them as a Hugging Face folder, return its path."""
    tokenizer = train_tokenizer(texts, config)
    tower = TOWERS[config.tower]
    images = image_processor(config.image, tower.colours)
    processor = make_processor(images, tokenizer, tower, config.patch, config.connector)
    # a fork, so that building a tiny model leaves the caller's random state alone
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model_config = tiny_model_config(config, tokenizer)
        model = class_of(model_config)(model_config)
    model.generation_config.update(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    with writing(out, "What is there is half a model."):
        os.makedirs(out, exist_ok=True)
        model.save_pretrained(out)
        processor.save_pretrained(out)
    return out


def words_of(pools: Iterable[Pool]) -> list[str]:
    """Return what the tiny model's tokenizer learns from: the templates' own words, and every turn of these pools."""
    texts = [str(t.system) for t in TEMPLATES.values()]
    for pool in pools:
        for records in pool.iter_batches(4096):
            texts += [turn["value"].replace("<image>", "") for r in records for turn in r.conversations]
    return texts + ["USER: ASSISTANT:"] * 50


def tiny_model_config(config: TinyModelConfig, tokenizer: PreTrainedTokenizerFast) -> LlavaConfig:
    """Return the Hugging Face config of the tiny model."""
    tower = TOWERS[config.tower]
    more: dict[str, Any] = (
        {} if config.connector.plain else {"connector": config.connector.model_dump(exclude_none=True)}
    )
    if LLMS[config.llm].head_bias:
        more["head_bias"] = True
    return LlavaConfig(
        vision_config=vision_config(config),
        text_config=text_config(config, tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy=tower.strategy,
        vision_feature_layer=config.feature_layer,
        projector_hidden_act="gelu",
        **more,
    )


def vision_config(config: TinyModelConfig) -> Any:
    """Return the Hugging Face config of the tiny model's vision tower."""
    values: dict[str, Any] = {
        "hidden_size": config.vision_hidden,
        "intermediate_size": 2 * config.vision_hidden,
        "num_hidden_layers": config.vision_layers,
        "num_attention_heads": config.heads,
        "image_size": config.image,
        "patch_size": config.patch,
        "initializer_range": config.init_std,
    }
    if config.tower == "dinov2":  # whose feed-forward width is a ratio
        values["mlp_ratio"] = 2
        del values["intermediate_size"]
    return CONFIG_MAPPING[TOWERS[config.tower].kind](**values)


def text_config(config: TinyModelConfig, tokenizer: PreTrainedTokenizerFast) -> Any:
    """Return the Hugging Face config of the tiny model's language model."""
    values: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": config.hidden,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.heads,
        "max_position_embeddings": config.max_len,
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": config.init_std,
    }
    # where a head's width is a setting of its own, its default is that of the full-sized model
    wide = {} if config.llm in ("llama", "mistral") else {"head_dim": config.hidden // config.heads}
    return CONFIG_MAPPING[config.llm](**(values | wide | dict(LLMS[config.llm].options)))


def train_tokenizer(
    texts: Iterable[str], config: TinyModelConfig, marks: tuple[str, ...] = ()
) -> PreTrainedTokenizerFast:
    """Train a LLaMA-like BPE: a space in front of every chunk becomes `▁`, unknown characters fall back to bytes.

    `marks`: special tokens besides.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    specials = [*SPECIALS, *(t for t in TEMPLATES[LLMS[config.llm].templates[-1]].tokens if t not in SPECIALS), *marks]
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab,
        special_tokens=[*specials, *(f"<0x{b:02X}>" for b in range(256))],
        initial_alphabet=["▁"],
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core = _only_specials(core, len(specials))
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="right",
        model_max_length=config.max_len,
        clean_up_tokenization_spaces=False,
    )


def _only_specials(core: "Tokenizer", count: int) -> "Tokenizer":
    # the trainer takes the byte tokens only as specials, and then a literal "<0x0A>" in a text would become one
    state = json.loads(core.to_str())
    state["added_tokens"] = state["added_tokens"][:count]
    return type(core).from_str(json.dumps(state))
