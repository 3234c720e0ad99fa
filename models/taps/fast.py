"""LLaMA-shaped decoders (LLaMA, Vicuna, Mistral) run by a leaner forward over Hugging Face's own weights.

The same mathematics as `LlamaModel.forward`, arranged for taking gradients: Linears that share an input are one group
(`tapped.py`); rows are right-padded, so the causal mask alone is exact and the flash kernels apply; on a GPU the
element-wise parts are one compiled kernel each. Other architectures go through Hugging Face's code, see `find_decoder`.
Axes: B rows, T tokens, H hidden, N heads, E head width.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..mores import mores_of
from ..registry import family_of
from .tapped import Branch, Group, Take, detached

ARCHITECTURES = ("LlamaModel", "MistralModel")
_GROUPS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))


def find_decoder(model: Any) -> Any | None:
    """Return the language model if `FastDecoder` computes exactly what it does, else None."""
    lm = family_of(model).decoder(model)
    # MoReS hooks whole layers, which are never called as such here
    known = type(lm).__name__ in ARCHITECTURES and lm.config.hidden_act == "silu" and mores_of(model) is None
    # who asked for checkpointing wants its memory: Hugging Face's code knows where
    if not known or any(getattr(m, "gradient_checkpointing", False) for m in lm.modules()):
        return None
    linears = [_part(layer, name) for layer in lm.layers for names in _GROUPS for name in names]
    return lm if all(_is_plain(m) or _is_lora(m) for m in linears) else None


class FastDecoder:
    """Embeddings [B, T, H] → last hidden states [B, T, H]; `taken` are the tapped modules that it runs itself."""

    def __init__(self, lm: Any, tapped: dict[str, nn.Linear], take: Take) -> None:
        names = {id(m): n for n, m in tapped.items()}
        self.lm, self.taken = lm, set()
        self.layers = []
        for layer in lm.layers:
            groups = [Group([self._branch(_part(layer, n), names) for n in group], take) for group in _GROUPS]
            self.layers.append((layer, groups))

    def fits(self, tokens: int) -> bool:
        """Say whether full causal attention is this model's at such a length."""
        window = getattr(self.lm.config, "sliding_window", None)
        return window is None or tokens <= window

    def __call__(self, x_BTH: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states; rows must be padded on the right."""
        at_1T = torch.arange(x_BTH.shape[1], device=x_BTH.device)[None]
        cos_1TE, sin_1TE = self.lm.rotary_emb(x_BTH, at_1T)
        for layer, groups in self.layers:
            x_BTH = _layer(layer, groups, x_BTH, (cos_1TE, sin_1TE))
        return _norm(self.lm.norm, x_BTH)

    def _branch(self, module: Any, names: dict[int, str]) -> Branch:
        base = module.base_layer if _is_lora(module) else module
        branch = Branch(detached(base.weight), detached(base.bias), names.get(id(base)))
        if _is_lora(module):
            (adapter,) = module.active_adapters
            a, b = module.lora_A[adapter], module.lora_B[adapter]
            branch.lora_a, branch.lora_b = detached(a.weight), detached(b.weight)
            branch.scale = float(module.scaling[adapter])
            branch.name_a, branch.name_b = names.get(id(a)), names.get(id(b))
        self.taken |= {n for n in (branch.name, branch.name_a, branch.name_b) if n}
        return branch


def _layer(layer: Any, groups: list[Group], x_BTH: torch.Tensor, rotary: tuple[torch.Tensor, ...]) -> torch.Tensor:
    qkv, output, gate_up, down = groups
    width = layer.self_attn.head_dim
    heads = [y.unflatten(-1, (-1, width)) for y in qkv(_norm(layer.input_layernorm, x_BTH))]
    q, k = _rotate(heads[0], *rotary), _rotate(heads[1], *rotary)
    mixed_BNTE = functional.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        heads[2].transpose(1, 2),
        is_causal=True,
        scale=layer.self_attn.scaling,
        enable_gqa=heads[0].shape[2] != heads[1].shape[2],
    )
    x_BTH = x_BTH + output(mixed_BNTE.transpose(1, 2).flatten(2))[0]
    gate, up = gate_up(_norm(layer.post_attention_layernorm, x_BTH))
    gated = _compiled_gate() if x_BTH.is_cuda else _gated
    return x_BTH + down(gated(gate, up))[0]


def _norm(module: Any, x_BTH: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(x_BTH, (x_BTH.shape[-1],), module.weight.detach(), module.variance_epsilon)


def _rotate(x_BTNE: torch.Tensor, cos_1TE: torch.Tensor, sin_1TE: torch.Tensor) -> torch.Tensor:
    if x_BTNE.is_cuda:
        from .kernels import Rotate

        return Rotate.apply(x_BTNE, cos_1TE[0].contiguous(), sin_1TE[0].contiguous())  # type: ignore[return-value]
    first, second = x_BTNE.chunk(2, -1)
    return x_BTNE * cos_1TE[:, :, None] + torch.cat((-second, first), -1) * sin_1TE[:, :, None]


def _gated(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return functional.silu(gate) * up


@lru_cache(1)
def _compiled_gate() -> Any:
    return torch.compile(_gated, dynamic=True)


def _part(layer: Any, name: str) -> Any:
    holder = layer.self_attn if hasattr(layer.self_attn, name) else layer.mlp
    return getattr(holder, name)


def _is_plain(module: Any) -> bool:
    return type(module) is nn.Linear


def _is_lora(module: Any) -> bool:
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
    return same and _is_plain(module.base_layer) and module.lora_B[adapter].bias is None
