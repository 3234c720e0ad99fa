"""Which decoders the lean code knows, what each is made of, and why a model is left to Hugging Face's own code.

An entry says in what a class of transformers differs from LLaMA's layers. Whatever is not exactly what an entry says (other
activations, capped scores, hooks, adapters that are no plain LoRA) is a reason to leave the lean code, and is told.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from ...mores import mores_of
from ...registry import family_of

GROUPS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
ACTIVATIONS = ("silu", "gelu_pytorch_tanh")
FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class Architecture:
    """One class of decoder, beside LLaMA's.

    `windows`: which layers see a window of the last tokens alone: none, all where the config has one, or those that
    `layer_types` names. `head_norms`: queries and keys have a norm of their own, a head at a time. `shifted`: norms
    multiply by 1 + weight, in float32. `four_norms`: also behind attention and feed-forward. `axes`: of a token's
    position. `bases`: sliding layers have rotary tables of their own. `scaled`: word embeddings come multiplied by √width
    from their own module. `takes`: which arguments of a family it knows.
    """

    windows: str = "none"
    head_norms: bool = False
    shifted: bool = False
    four_norms: bool = False
    axes: int = 1
    bases: bool = False
    scaled: bool = False
    takes: frozenset[str] = frozenset()


_DEEP = ("visual_pos_masks", "deepstack_visual_embeds")
TABLE = {
    "LlamaModel": Architecture(),
    "MistralModel": Architecture(windows="all"),
    "Qwen2Model": Architecture(windows="types"),
    "Qwen2VLTextModel": Architecture(windows="types", axes=3, takes=frozenset({"position_ids"})),
    "Qwen2_5_VLTextModel": Architecture(windows="types", axes=3, takes=frozenset({"position_ids"})),
    "Qwen3Model": Architecture(windows="types", head_norms=True),
    "Qwen3VLTextModel": Architecture(head_norms=True, axes=3, takes=frozenset({"position_ids", *_DEEP})),
    "GemmaModel": Architecture(shifted=True, scaled=True),
    "Gemma2Model": Architecture(windows="types", shifted=True, four_norms=True, scaled=True),
    "Gemma3TextModel": Architecture(
        windows="types",
        head_norms=True,
        shifted=True,
        four_norms=True,
        bases=True,
        scaled=True,
        takes=frozenset({"attention_mask"}),
    ),
}
# settings of a config that change what attention computes, each with what it does
_OTHER_ATTENTION = {
    "attn_logit_softcapping": "its attention scores are capped",
    "use_bidirectional_attention": "its tokens attend both ways",
}


def architecture_of(decoder: Any) -> Architecture | None:
    """Return the entry of a decoder's class, None where it has none."""
    kind = type(decoder)
    return TABLE.get(kind.__name__) if kind.__module__.startswith("transformers.models.") else None


def reason_against(model: Any) -> str | None:
    """Return why `LeanDecoder` may not run a model's decoder, None where it computes exactly what that does."""
    if mores_of(model) is not None:  # it hooks whole layers, which are never called as such there
        return "MoReS steers between its layers"
    return reason_of(family_of(model).decoder(model))


def reason_of(decoder: Any) -> str | None:
    """Return the same of a decoder by itself."""
    entry = architecture_of(decoder)
    if entry is None:
        return f"the lean decoder does not know {type(decoder).__name__}"
    # who asked for checkpointing wants its memory: Hugging Face's code knows where
    if any(getattr(m, "gradient_checkpointing", False) for m in decoder.modules()):
        return "gradient checkpointing is on"
    for setting, what in _OTHER_ATTENTION.items():
        if getattr(decoder.config, setting, None):
            return what
    return next(_other_parts(decoder, entry), None)


def _other_parts(decoder: Any, entry: Architecture) -> Iterator[str]:
    """Yield what of a decoder of a known class is not as its entry says."""
    if entry.scaled and not hasattr(decoder.embed_tokens, "embed_scale"):
        yield "its word embeddings are scaled elsewhere"
    kinds = layer_kinds(decoder, entry)
    if not set(kinds) <= {FULL, SLIDING}:
        yield f"its layers attend in other ways: {', '.join(sorted({*kinds} - {FULL, SLIDING}))}"
    if any(2 * n != layer.self_attn.head_dim for n, layer in zip(_turned(decoder, entry, kinds), decoder.layers)):
        yield "its rotary embedding turns a part of each head"
    for number, layer in enumerate(decoder.layers):
        if activation_of(layer) is None:
            yield f"layer {number} has the activation {type(layer.mlp.act_fn).__name__}"
        for module in (part(layer, leaf) for leaves in GROUPS for leaf in leaves):
            if not (is_plain(module) or is_lora(module)):
                yield f"layer {number} has {type(module).__name__}s that are no Linears with or without a plain LoRA"
    for name, module in (*decoder.layers.named_modules(), *decoder.norm.named_modules()):
        if _is_hooked(module):
            yield f"something hooks into its module {name or 'norm'}"


def layer_kinds(decoder: Any, entry: Architecture) -> list[str]:
    """Return how each layer attends, as `layer_types` calls it."""
    config, count = decoder.config, len(decoder.layers)
    if entry.windows == "types":
        return list(config.layer_types)[:count]
    slides = entry.windows == "all" and getattr(config, "sliding_window", None) is not None
    return [SLIDING if slides else FULL] * count


def _turned(decoder: Any, entry: Architecture, kinds: list[str]) -> list[int]:
    """Return how many pairs of each layer's heads are turned."""
    rotary = decoder.rotary_emb
    return [getattr(rotary, f"{kind}_inv_freq" if entry.bases else "inv_freq").numel() for kind in kinds]


def activation_of(layer: Any) -> str | None:
    """Return the name of a layer's activation, None of one that is not known."""
    from transformers.activations import ACT2FN

    return next((name for name in ACTIVATIONS if type(layer.mlp.act_fn) is type(ACT2FN[name])), None)


def part(layer: Any, leaf: str) -> Any:
    """Return a Linear of a layer by its leaf name, or the adapter around it."""
    holder = layer.self_attn if hasattr(layer.self_attn, leaf) else layer.mlp
    return getattr(holder, leaf)


def is_plain(module: Any) -> bool:
    """Say whether this is a Linear and nothing else."""
    return type(module) is nn.Linear


def is_lora(module: Any) -> bool:
    """Say whether this is PEFT's plain LoRA on a plain Linear: one adapter, in the base's dtype, not merged, not DoRA."""
    if type(module).__name__ != "Linear" or not type(module).__module__.startswith("peft.tuners.lora"):
        return False
    if (
        len(module.active_adapters) != 1
        or module.merged
        or module.disable_adapters
        or getattr(module, "lora_variant", None)
    ):
        return False
    (adapter,) = module.active_adapters
    same = {module.lora_A[adapter].weight.dtype, module.lora_B[adapter].weight.dtype} == {
        module.base_layer.weight.dtype
    }
    return same and is_plain(module.base_layer) and module.lora_B[adapter].bias is None


def _is_hooked(module: nn.Module) -> bool:
    """Say whether calling a module does more than its class does; transformers' own recorders do not count."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values(), *module._backward_hooks.values())
    return "forward" in vars(module) or any(
        not getattr(hook, "__module__", "").startswith("transformers.") for hook in hooks
    )
