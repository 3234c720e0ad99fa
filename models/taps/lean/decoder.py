"""Decoders of LLaMA's kind run by a leaner forward over Hugging Face's own weights.

The same mathematics as the `forward` of the classes in `architectures.py`, arranged for taking gradients: Linears that
share an input are one group (`tapped.py`); rows are right-padded, so the causal mask alone is exact and the flash kernels
apply; on a GPU the element-wise parts are one kernel each (`elements.py`). Of layers that see a window only, and of image
tokens that attend both ways, the mask is written out, and a kernel that takes one applies.
Axes: B rows, T tokens, H hidden, N heads, E head width, I image tokens of the batch.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..tapped import Branch, Group, Take, detached
from .architectures import GROUPS, SLIDING, activation_of, architecture_of, is_lora, layer_kinds, part
from .elements import Norm, gate, rotate


@dataclass(frozen=True)
class Layer:
    """One layer: how it attends, its groups of Linears, and its norms by their own names (`q_norm` of heads)."""

    kind: str
    groups: list[Group]
    norms: dict[str, Norm]
    width: int
    scale: float
    activation: str


class LeanDecoder:
    """Embeddings [B, T, H] → last hidden states [B, T, H]; `taken` are the tapped modules that it runs itself.

    Only for a model of which `reason_against` has nothing to say.
    """

    def __init__(self, lm: Any, tapped: dict[str, nn.Linear], take: Take) -> None:
        entry = architecture_of(lm)
        assert entry is not None
        names = {id(m): n for n, m in tapped.items()}
        self.lm, self.entry, self.taken = lm, entry, set[str]()
        self.window = getattr(lm.config, "sliding_window", None)
        self.layers = [
            self._read(layer, kind, names, take) for layer, kind in zip(lm.layers, layer_kinds(lm, entry), strict=True)
        ]
        self.last = Norm(lm.norm, entry.shifted)

    def reason_against(self, arguments: dict[str, Any], x_BTH: torch.Tensor) -> str | None:
        """Return why a batch is left to Hugging Face's own code, None where this one computes exactly the same."""
        if others := sorted(set(arguments) - self.entry.takes):
            return f"the decoder is told of {', '.join(others)}"
        places = arguments.get("position_ids")
        if places is not None and places.shape[:-2] != (3,):
            return f"positions have the shape {list(places.shape)}"
        masks = arguments.get("attention_mask")
        if masks is not None and not (isinstance(masks, dict) and {layer.kind for layer in self.layers} <= set(masks)):
            return "the mask is none of each kind of layer"
        for mask in (masks or {}).values():
            if mask is not None and not _is_whole(mask, x_BTH):
                return "a mask is not one of all pairs of tokens"
        return None

    def __call__(self, x_BTH: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
        """Return the last hidden states; rows must be padded on the right."""
        tables = self._tables(x_BTH, arguments.get("position_ids"))
        masks = arguments.get("attention_mask") or {SLIDING: self._band(x_BTH)}
        deep, shown = arguments.get("deepstack_visual_embeds"), arguments.get("visual_pos_masks")
        # a family may name places by index vectors: a GPU waits for a mask's
        places_I = torch.nonzero(shown, as_tuple=True) if isinstance(shown, torch.Tensor) else shown
        for number, layer in enumerate(self.layers):
            x_BTH = self._run(layer, x_BTH, tables[layer.kind if self.entry.bases else ""], masks.get(layer.kind))
            if deep is not None and number < len(deep):
                seen_IH = x_BTH[places_I] + deep[number].to(x_BTH)
                x_BTH = x_BTH.index_put(places_I, seen_IH)
        return self.last(x_BTH)

    def _tables(self, x_BTH: torch.Tensor, places: torch.Tensor | None) -> dict[str, tuple[torch.Tensor, ...]]:
        """Return cos and sin [1 or B, T, E], by the kind of layer where those differ."""
        if places is None:
            places = torch.arange(x_BTH.shape[1], device=x_BTH.device)[None]
            places = places.expand(3, 1, -1) if self.entry.axes == 3 else places
        if not self.entry.bases:
            return {"": self.lm.rotary_emb(x_BTH, places)}
        return {kind: self.lm.rotary_emb(x_BTH, places, kind) for kind in {layer.kind for layer in self.layers}}

    def _band(self, x_BTH: torch.Tensor) -> torch.Tensor | None:
        """Return which keys a query of a sliding layer sees, bool [1, 1, T, T]; None where it sees all before it."""
        tokens = x_BTH.shape[1]
        if self.window is None or tokens <= self.window or all(layer.kind != SLIDING for layer in self.layers):
            return None
        place_T = torch.arange(tokens, device=x_BTH.device)
        apart_TT = place_T[:, None] - place_T
        return ((apart_TT >= 0) & (apart_TT < self.window))[None, None]

    def _run(
        self, layer: Layer, x_BTH: torch.Tensor, tables: tuple[torch.Tensor, ...], mask: torch.Tensor | None
    ) -> torch.Tensor:
        _, output, gate_up, down = layer.groups
        mixed = output(_attend(layer, x_BTH, tables, mask))[0]
        if self.entry.four_norms:
            mixed = layer.norms["post_attention_layernorm"](mixed)
        x_BTH = x_BTH + mixed
        before = "pre_feedforward_layernorm" if self.entry.four_norms else "post_attention_layernorm"
        fed = down(gate(layer.activation, *gate_up(layer.norms[before](x_BTH))))[0]
        if self.entry.four_norms:
            fed = layer.norms["post_feedforward_layernorm"](fed)
        return x_BTH + fed

    def _read(self, layer: Any, kind: str, names: dict[int, str], take: Take) -> Layer:
        groups = [Group([self._branch(part(layer, n), names) for n in group], take) for group in GROUPS]
        own = {n: m for n, m in layer.named_children() if n.endswith("layernorm")}
        if self.entry.head_norms:
            own |= {n: getattr(layer.self_attn, n) for n in ("q_norm", "k_norm")}
        norms = {n: Norm(m, self.entry.shifted) for n, m in own.items()}
        attention, activation = layer.self_attn, activation_of(layer)
        assert activation is not None
        return Layer(kind, groups, norms, attention.head_dim, attention.scaling, activation)

    def _branch(self, module: Any, names: dict[int, str]) -> Branch:
        base = module.base_layer if is_lora(module) else module
        branch = Branch(detached(base.weight), detached(base.bias), names.get(id(base)))
        if is_lora(module):
            (adapter,) = module.active_adapters
            a, b = module.lora_A[adapter], module.lora_B[adapter]
            branch.lora_a, branch.lora_b = detached(a.weight), detached(b.weight)
            branch.scale = float(module.scaling[adapter])
            branch.name_a, branch.name_b = names.get(id(a)), names.get(id(b))
        self.taken |= {n for n in (branch.name, branch.name_a, branch.name_b) if n}
        return branch


def _attend(
    layer: Layer, x_BTH: torch.Tensor, tables: tuple[torch.Tensor, ...], mask: torch.Tensor | None
) -> torch.Tensor:
    """Return what the heads give, side by side [B, T, N·E]."""
    heads = [y.unflatten(-1, (-1, layer.width)) for y in layer.groups[0](layer.norms["input_layernorm"](x_BTH))]
    if "q_norm" in layer.norms:
        heads[:2] = layer.norms["q_norm"](heads[0]), layer.norms["k_norm"](heads[1])
    turned = rotate(heads[0], *tables), rotate(heads[1], *tables)
    query, key, value = (y.transpose(1, 2) for y in (*turned, heads[2]))
    grouped = query.shape[1] // key.shape[1]
    if mask is not None and grouped > 1:  # kernels that take a mask know no grouped keys
        key, value = (y.repeat_interleave(grouped, dim=1) for y in (key, value))
    mixed_BNTE = functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None,
        scale=layer.scale,
        enable_gqa=mask is None and grouped > 1,
    )
    return mixed_BNTE.transpose(1, 2).flatten(2)


def _is_whole(mask: Any, x_BTH: torch.Tensor) -> bool:
    """Say whether this is a mask of all pairs of a row's tokens, the same for all heads."""
    rows, tokens = x_BTH.shape[:2]
    return (
        isinstance(mask, torch.Tensor)
        and mask.dtype in (torch.bool, x_BTH.dtype)
        and mask.ndim == 4
        and mask.shape[0] in (1, rows)
        and tuple(mask.shape[1:]) == (1, tokens, tokens)
    )
