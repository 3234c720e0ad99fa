"""Language models by Hugging Face model type: conversation template, Linear names, what is odd. A new one is one entry.

Any decoder that `AutoModelForCausalLM` knows, that takes `inputs_embeds` and keeps its blocks in `layers`, can be built in
(`build.py` tries it out); one without an entry gets `OTHER`, whose LoRA goes onto every Linear of its blocks.
"""

from dataclasses import dataclass
from typing import Any

from ....pool.templates import TEMPLATES

_SEPARATE = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# where LoRA goes in LLaMA-like decoders; a regex, not "all-linear": that would reach vision tower and projector
LORA_TARGETS = rf".*language_model\.layers\..*\.({'|'.join(_SEPARATE)})"


@dataclass(frozen=True)
class Llm:
    """One kind of language model.

    `templates`: conversation templates (`pool/templates.py`); the first whose special tokens the tokenizer knows is the
    default, the last one is that of the plain base model. `linears`: leaf names of the Linears in a block, where LoRA goes.
    `options`: what a tiny config of this kind must say besides the common sizes. `head_bias`: its LM head has
    a bias, which Hugging Face's LLaVA has not.
    """

    kinds: tuple[str, ...]
    templates: tuple[str, ...]
    linears: tuple[str, ...] = _SEPARATE
    options: tuple[tuple[str, Any], ...] = ()
    head_bias: bool = False


_ALL = (
    # LLaMA, Vicuna, TinyLlama: v1; SmolLM2 is a LLaMA too, with ChatML's tokens in its tokenizer
    Llm(("llama",), ("chatml", "v1")),
    Llm(("mistral",), ("chatml", "mistral_instruct")),
    Llm(("qwen2", "qwen3"), ("chatml",)),
    Llm(("smollm3",), ("chatml",)),
    Llm(("phi",), ("phi",), ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"), head_bias=True),
    Llm(("phi3",), ("phi",), ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")),
    # word embeddings are scaled by √width inside `embed_tokens`; image features are not, as in Hugging Face's LLaVA
    Llm(("gemma", "gemma3_text"), ("gemma",), options=(("tie_word_embeddings", True),)),
    # TinyLLaVA trains StableLM-2 with its `phi` template; the chat models have ChatML's tokens
    Llm(("stablelm",), ("chatml", "phi")),
)
LLMS = {kind: entry for entry in _ALL for kind in entry.kinds}
# of unknown names: LoRA's targets are then every Linear of its blocks
OTHER = Llm((), ("v1",), ())


def llm_of(config: Any) -> Llm:
    """Return the entry of a model's language model, from a LLaVA's config or its own; `OTHER` where there is none."""
    return LLMS.get(getattr(config, "text_config", config).model_type, OTHER)


def lora_names(language_model: Any) -> list[str]:
    """Return the leaf names of the Linears in a decoder's blocks, where adapters go by default."""
    from torch import nn

    there = {n.rsplit(".", 1)[-1] for n, m in language_model.layers.named_modules() if isinstance(m, nn.Linear)}
    known = llm_of(language_model.config).linears
    return [n for n in known if n in there] or sorted(there)


def fitting_template(config: Any, tokenizer: Any) -> str:
    """Return the conversation template of a language model: its entry's first whose special tokens the tokenizer knows."""
    words = tokenizer.get_vocab()
    return next((n for n in llm_of(config).templates if all(t in words for t in TEMPLATES[n].tokens)), "v1")
