"""A family's tiny model: random weights, tokenizer, image processor and chat template in one folder of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .processor import FolderProcessor


def words(texts: list[str], marks: tuple[str, ...], end: str, named: dict[str, str] | None = None) -> Any:
    """Return a byte-level tokenizer trained on texts, with `marks` as special tokens; `end` ends a text.

    `named`: those that a model's own processor asks for by an attribute of the tokenizer.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    specials = list(dict.fromkeys(["<pad>", end, *marks]))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token=end,
        extra_special_tokens=named or {},
        padding_side="right",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def write(out: str, model_class: Any, config: Any, processor: FolderProcessor, template: str) -> str:
    """Write a model of random weights (seed 0) with its processor and chat template; returns the folder."""
    tokenizer = processor.tokenizer
    tokenizer.chat_template = template
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)
    model.generation_config.update(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    Path(out).mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    processor.save_pretrained(out)
    return out


def drawn(model_class: Any) -> Callable[[Any], Any]:
    """Return what makes a model whose norms, biases and positions are random too: Hugging Face's begin as 0s and 1s."""

    def build(config: Any) -> Any:
        model = model_class(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if bool((parameter == parameter.flatten()[0]).all()):
                    parameter.add_(torch.randn_like(parameter) * 0.2)
        return model

    return build
