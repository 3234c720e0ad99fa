"""Cross-modal attention of a proxy VLM as a few singular values a sample (XMAS).

Per layer: attention weights over all valid keys, block text queries × image keys, summed over layers in float32, then the
top-k singular values. Readings: `flat`: softmax(q·kᵀ / √width) of the raw q_proj and k_proj outputs, no head split, no
rotary, no causal mask, which is the paper's formula and not what its code computes; `heads`: the attention that the model
computes (rotary, causal, mean over heads); `xmas`: the numbers of the released code, in `published.py`. In the first two
pads are masked and image positions are read from the ids, so a sample's values do not depend on its batch-mates (spec:
XMAS §3, §3.1). The forward pass ends at the last layer's keys.
Axes: B samples, L tokens, R text rows after the image, C image columns, W width, N heads, E head width, K kept values.
"""

import sys
from typing import Any

import torch
from torch import nn

from ...store.errors import InputError
from ..forward import decode, embed, on_device
from ..registry import family_of
from ..specs import Reading
from .base import Tap
from .forward import wide
from .published import OFFSETS, Offsets, Sketch, as_released, elementwise, fixed_places
from .singular import exact, gram, iterated

# heads whose scores exist at one time
HEADS = 8
# settings of a layer or a config under which attention is something else
_OTHER_ATTENTION = ("attn_logit_softcapping", "use_bidirectional_attention")


class _Enough(Exception):
    """Raised at the last layer's keys: what comes after is not needed."""


class AttentionTap(Tap):
    """Turns a collated batch into the top-k singular values [B, K], descending; text-only samples get zeros.

    `offsets` (first image column, one past the last, first text row) are the published ones; `xmas` alone reads them. It
    gives text-only samples the value that the released code gives them.
    """

    def __init__(self, model: Any, top_k: int = 5, reading: Reading = "flat", offsets: Offsets = OFFSETS) -> None:
        self.model, self.dim, self.reading, self.offsets = model, top_k, reading, offsets
        self.layers = _attention_layers(model)
        if reading == "heads":
            _refuse_unknown(self.layers)
        self._queries: torch.Tensor | None = None
        self._rotary: tuple[torch.Tensor, torch.Tensor] | None = None
        self._sum_BRC: torch.Tensor | None = None
        self._places: dict[str, torch.Tensor] = {}
        self._open: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        # where keys are pads; None where none is, or where pads count as published
        self._pads_BL: torch.Tensor | None = None
        self.sketch = Sketch()

    @torch.no_grad()
    def tensors(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return the vectors [B, K] f32 on the model's device, without waiting for it; final after `settle`."""
        batch = on_device(batch if self.reading != "xmas" else as_released(batch, self.model), self.model)
        self._places, self._sum_BRC = self._cut(batch), None
        masked = batch["padded"] and self.reading != "xmas"
        self._pads_BL = ~batch["attention_mask"].bool() if masked else None
        handles = [h for i, layer in enumerate(self.layers) for h in self._hook(i, layer)]
        try:
            if self._places["image"].shape[1] and self._places["text"].shape[1]:
                decode(self.model, *self._inputs(batch))
        except _Enough:
            pass
        finally:
            for handle in handles:
                handle.remove()
            self._queries = self._rotary = None
        block_BRC, self._sum_BRC = self._sum_BRC, None
        if block_BRC is None:
            return torch.zeros(batch["input_ids"].shape[0], self.dim, device=batch["input_ids"].device)
        if self.reading == "xmas":
            return self.sketch.values(block_BRC, self.dim)
        gram_Bnn = gram(block_BRC)
        if not gram_Bnn.is_cuda:
            return exact(gram_Bnn, self.dim).float()
        wide_BK, bad_B = iterated(gram_Bnn, self.dim)
        values_BK = wide_BK.float()
        self._open.append((values_BK, bad_B, gram_Bnn))
        return values_BK

    def restart(self) -> None:
        """Begin the released code's random start anew."""
        self.sketch.restart()

    def settle(self) -> None:
        """Make values that did not settle by iteration exact, in place; waits for the device."""
        for values_BK, bad_B, gram_Bnn in self._open:
            if bool(bad_B.any()):
                values_BK[bad_B] = exact(gram_Bnn[bad_B], self.dim).float()
        self._open.clear()

    def _inputs(self, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
        embeds_BTH, arguments = embed(self.model, batch)
        if self.reading == "xmas":
            embeds_BTH = embeds_BTH.masked_fill(batch["empty"][..., None], 0)
        return embeds_BTH, arguments

    def _cut(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Return which rows and columns of the attention are kept, and which of them are real."""
        if self.reading != "xmas":
            return batch["places"]
        return fixed_places(batch["input_ids"], self.offsets)

    def _hook(self, index: int, layer: nn.Module) -> list[Any]:
        def rotary(_: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
            self._rotary = kwargs["position_embeddings"]

        def keep(_: nn.Module, __: Any, out: torch.Tensor) -> None:
            # [B, L, W] → text rows [B, R, W]; the rest of the queries is let go, but for the release's exchange
            queries = self._normed(layer, out, "q_norm")
            self._queries = queries if self.reading == "xmas" else _take_rows(queries, self._places["text"])

        def add(_: nn.Module, __: Any, out: torch.Tensor) -> None:
            assert self._queries is not None
            keys_BLW = self._normed(layer, out, "k_norm")
            share = {"heads": self._by_heads, "flat": self._flat, "xmas": self._exchanged}[self.reading]
            block_BRC = share(layer, self._queries, keys_BLW)
            self._sum_BRC = block_BRC if self._sum_BRC is None else self._sum_BRC.add_(block_BRC)
            if index + 1 == len(self.layers):
                raise _Enough

        hooks = [layer.q_proj.register_forward_hook(keep), layer.k_proj.register_forward_hook(add)]
        if self.reading == "heads":
            hooks.append(layer.register_forward_pre_hook(rotary, with_kwargs=True))
        return hooks

    def _normed(self, layer: Any, out_BLW: torch.Tensor, name: str) -> torch.Tensor:
        norm = getattr(layer, name, None)
        if self.reading != "heads" or norm is None:  # the flat readings take the Linear's own output
            return out_BLW
        return norm(out_BLW.unflatten(-1, (-1, layer.head_dim))).flatten(2)

    def _exchanged(self, _: Any, query_BLW: torch.Tensor, key_BLW: torch.Tensor) -> torch.Tensor:
        rows_BRW = _take_rows(elementwise(key_BLW, query_BLW.shape[-1]), self._places["text"])
        return self._block(products(rows_BRW, query_BLW).mul_(query_BLW.shape[-1] ** -0.5))

    def _flat(self, layer: Any, query_BRW: torch.Tensor, key_BLW: torch.Tensor) -> torch.Tensor:
        if query_BRW.shape[-1] != key_BLW.shape[-1]:  # grouped keys: each serves several query heads
            heads = key_BLW.unflatten(-1, (-1, layer.head_dim))
            key_BLW = heads.repeat_interleave(query_BRW.shape[-1] // key_BLW.shape[-1], dim=2).flatten(2)
        scores_BRL = products(query_BRW, key_BLW).mul_(query_BRW.shape[-1] ** -0.5)
        if self._pads_BL is not None:
            scores_BRL.masked_fill_(self._pads_BL[:, None], float("-inf"))
        return self._block(scores_BRL)

    def _by_heads(self, layer: Any, query_BRW: torch.Tensor, key_BLW: torch.Tensor) -> torch.Tensor:
        assert self._rotary is not None
        text_BR = self._places["text"]
        at_L = torch.arange(key_BLW.shape[1], device=key_BLW.device)
        # right-padded rows: what a text row may see under the causal mask is never a pad
        unseen_BRL = at_L > text_BR[:, :, None]
        window = getattr(layer, "sliding_window", getattr(layer.config, "sliding_window", None))
        if window is not None:
            unseen_BRL |= text_BR[:, :, None] - at_L >= window
        cos, sin = (x.expand(len(text_BR), -1, -1) for x in self._rotary)
        query = _rotated(layer, query_BRW, _take_rows(cos, text_BR), _take_rows(sin, text_BR))
        key = _rotated(layer, key_BLW, cos, sin)
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        total = None
        for first in range(0, query.shape[1], HEADS):
            some = slice(first, first + HEADS)
            pairs = query[:, some].flatten(0, 1), key[:, some].flatten(0, 1)
            scores_BNRL = (
                products(*pairs).mul_(getattr(layer, "scaling", layer.head_dim**-0.5)).unflatten(0, (len(text_BR), -1))
            )
            block = self._block(scores_BNRL.masked_fill_(unseen_BRL[:, None], float("-inf"))).sum(1)
            total = block if total is None else total.add_(block)
        assert total is not None
        return total / query.shape[1]

    def _block(self, scores_BRL: torch.Tensor) -> torch.Tensor:
        """Return softmax over keys at the image columns alone, zero where a row or column is a pad: [B, …, R, C]."""
        image_BC = self._places["image"]
        real_BRC = self._places["text_real"][:, :, None] & self._places["image_real"][:, None]
        if scores_BRL.ndim == 4:  # heads between batch and rows
            image_BC, real_BRC = image_BC[:, None], real_BRC[:, None]
        norm_BR1 = scores_BRL.logsumexp(-1, keepdim=True)
        picked = scores_BRL.gather(-1, image_BC[..., None, :].expand(*scores_BRL.shape[:-1], -1))
        return picked.sub_(norm_BR1).exp_().mul_(real_BRC)


def _refuse_unknown(layers: list[Any]) -> None:
    """Refuse a model of whose attention more is computed than softmax(q·kᵀ · scale) under a causal mask and a window.

    Image tokens that attend both ways change nothing: the rows that are read are of text behind them.

    Raises:
        InputError: names what is not known.
    """
    for layer in layers:
        settings = {n: getattr(layer, n, None) or getattr(layer.config, n, None) for n in _OTHER_ATTENTION}
        known = (getattr(layer, n, None) for n in ("q_norm", "k_norm"))
        # Phi and StableLM may normalise queries and keys by modules of this name, each in its own way
        others = ["qk_layernorm"] if hasattr(layer, "q_layernorm") else []
        others += [name for name, value in settings.items() if value]
        if any(norm is not None and norm.weight.shape != (layer.head_dim,) for norm in known):
            others.append("q_norm over all heads")
        if others:
            raise InputError(f"attention 'heads' does not know this model's {', '.join(others)}: take 'flat'.")


def products(query_BRW: torch.Tensor, key_BLW: torch.Tensor) -> torch.Tensor:
    """Return q·kᵀ [B, R, L] in float32 or wider: in half precision it overflows before scaling (spec: XMAS §3.1)."""
    if query_BRW.is_cuda and query_BRW.dtype == torch.bfloat16:
        return torch.bmm(query_BRW, key_BLW.transpose(1, 2), out_dtype=torch.float32)
    return wide(query_BRW) @ wide(key_BLW).transpose(1, 2)


def _rotated(layer: Any, x_BLW: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Return heads [B, N, L, E] after the model's own rotary embedding, which may turn a part of each head only."""
    apply = getattr(sys.modules[type(layer).__module__], "apply_rotary_pos_emb", None)
    if apply is None:
        raise InputError(f"{type(layer).__name__} has no rotary embedding that `heads` knows: take attention 'flat'.")
    heads = x_BLW.unflatten(-1, (-1, layer.head_dim)).transpose(1, 2)
    if not getattr(layer, "use_rope", True):  # some layers of SmolLM3
        return heads
    turned, kept = heads[..., : cos.shape[-1]], heads[..., cos.shape[-1] :]
    turned, _ = apply(turned, turned, cos, sin)
    return torch.cat((turned, kept), -1)


def _take_rows(x_BLW: torch.Tensor, at_BR: torch.Tensor) -> torch.Tensor:
    return x_BLW.gather(1, at_BR[:, :, None].expand(-1, -1, x_BLW.shape[-1]))


def _attention_layers(model: Any) -> list[Any]:
    layers = [
        m for n, m in family_of(model).decoder(model).named_modules() if hasattr(m, "q_proj") and hasattr(m, "k_proj")
    ]
    if not layers:
        raise InputError("this language model has no q_proj/k_proj modules: attention trajectories cannot be taken.")
    return layers
