"""Connectors: vision features [I, S, V] → tokens of the language model [I, N, H]. A new one is one entry of `CONNECTORS`.

`mlp2x_gelu` is Hugging Face's own projector; the others stand in its place under the same name. Linears are applied to
tensors [pictures, tokens, width], queries too: a tap finds every picture's own share.
Axes: I pictures, S tower tokens, V tower width, Q queries, W the connector's own width, H the language model's width, N is
S or Q.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ....store.errors import InputError
from ...specs import MLP, ConnectorSpec


class Stack(nn.Module):
    """`linear_1`, then GELU and a Linear each; named as Hugging Face names the two of its own."""

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.count = count
        for i in range(count):
            self.add_module(f"linear_{i + 1}", nn.Linear(inputs if i == 0 else outputs, outputs))

    def forward(self, x_ISV: torch.Tensor) -> torch.Tensor:
        """Return [I, S, H]."""
        for i in range(self.count):
            x_ISV = getattr(self, f"linear_{i + 1}")(functional.gelu(x_ISV) if i else x_ISV)
        return x_ISV


class Attention(nn.Module):
    """Multi-head attention of `x` [I, Q, W] over `seen` [I, S, K]."""

    def __init__(self, width: int, seen: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.o_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.k_proj, self.v_proj = nn.Linear(seen, width), nn.Linear(seen, width)

    def forward(self, x_IQW: torch.Tensor, seen_ISK: torch.Tensor) -> torch.Tensor:
        """Return [I, Q, W]."""
        split = [
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for y in (self.q_proj(x_IQW), self.k_proj(seen_ISK), self.v_proj(seen_ISK))
        ]
        return self.o_proj(functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Four times as wide, GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x_IQW: torch.Tensor) -> torch.Tensor:
        """Return [I, Q, W]."""
        return self.fc2(functional.gelu(self.fc1(x_IQW)))


class ResamplerBlock(nn.Module):
    """Queries look at features and at themselves, then feed forward; norms before (Flamingo, arXiv:2204.14198 §2.2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.norm_seen, self.norm_ffn = (nn.LayerNorm(width) for _ in range(3))
        self.attention, self.ffn = Attention(width, width, heads), FeedForward(width)

    def forward(self, x_IQW: torch.Tensor, seen_ISW: torch.Tensor) -> torch.Tensor:
        """Return [I, Q, W]."""
        asked = self.norm(x_IQW)
        x_IQW = x_IQW + self.attention(asked, torch.cat((self.norm_seen(seen_ISW), asked), 1))
        return x_IQW + self.ffn(self.norm_ffn(x_IQW))


class QFormerBlock(nn.Module):
    """BERT's block on queries, norms behind; with attention to the features in every second one (arXiv:2301.12597 §3.1)."""

    def __init__(self, width: int, heads: int, seen: int | None) -> None:
        super().__init__()
        self.attention, self.norm = Attention(width, width, heads), nn.LayerNorm(width)
        if seen is not None:
            self.cross, self.norm_cross = Attention(width, seen, heads), nn.LayerNorm(width)
        self.ffn, self.norm_ffn = FeedForward(width), nn.LayerNorm(width)

    def forward(self, x_IQW: torch.Tensor, seen_ISV: torch.Tensor) -> torch.Tensor:
        """Return [I, Q, W]."""
        x_IQW = self.norm(x_IQW + self.attention(x_IQW, x_IQW))
        if hasattr(self, "cross"):
            x_IQW = self.norm_cross(x_IQW + self.cross(x_IQW, seen_ISV))
        return self.norm_ffn(x_IQW + self.ffn(x_IQW))


class Queries(nn.Module):
    """Learned queries that go through blocks which read the features; common to resampler and q-former."""

    def __init__(self, spec: ConnectorSpec, inputs: int, outputs: int) -> None:
        super().__init__()
        width, layers, heads = spec.sizes()
        self.queries = nn.Parameter(torch.empty(spec.tokens(0), width))
        if spec.kind == "resampler":
            self.inputs, self.norm = nn.Linear(inputs, width), nn.LayerNorm(width)
            blocks: list[nn.Module] = [ResamplerBlock(width, heads) for _ in range(layers)]
        else:
            self.inputs, self.norm = nn.Identity(), nn.LayerNorm(width)
            blocks = [QFormerBlock(width, heads, None if i % 2 else inputs) for i in range(layers)]
        # norms before the blocks' work (resampler) or behind it (BERT)
        self.blocks, self.behind = nn.ModuleList(blocks), spec.kind == "qformer"
        self.outputs = nn.Linear(width, outputs)

    def forward(self, x_ISV: torch.Tensor) -> torch.Tensor:
        """Return [I, Q, H]."""
        seen, queries = self.inputs(x_ISV), self.queries.to(x_ISV.dtype).expand(len(x_ISV), -1, -1)
        queries = self.norm(queries) if self.behind else queries
        for block in self.blocks:
            queries = block(queries, seen)
        return self.outputs(queries if self.behind else self.norm(queries))


def _identity(spec: ConnectorSpec, inputs: int, outputs: int) -> nn.Module:
    if inputs != outputs:
        raise InputError(
            f"connector identity: the vision tower gives {inputs} values a token, the language model takes {outputs}; "
            "take linear or mlp2x_gelu."
        )
    return nn.Identity()


# (spec, values a tower token, the language model's width) → module; `mlp{n}x_gelu` is found by its name
CONNECTORS: dict[str, Callable[[ConnectorSpec, int, int], nn.Module]] = {
    "linear": lambda spec, inputs, outputs: Stack(1, inputs, outputs),
    "identity": _identity,
    "resampler": Queries,
    "qformer": Queries,
}


def make_connector(spec: ConnectorSpec, inputs: int, outputs: int, std: float = 0.02) -> nn.Module:
    """Return a fresh connector; weights are normal with deviation `std`, biases 0, as Hugging Face draws its own.

    Raises:
        InputError: identity between widths that differ.
    """
    count = MLP.fullmatch(spec.kind)
    connector = Stack(int(count[1]), inputs, outputs) if count else CONNECTORS[spec.kind](spec, inputs, outputs)
    for name, parameter in connector.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=std)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return connector


def connector_of(config: Any) -> ConnectorSpec:
    """Return the connector that a LLaVA's config names; without a word, Hugging Face's own."""
    values = getattr(config, "connector", None)
    return ConnectorSpec() if values is None else ConnectorSpec.parse(values, "config.json: connector")
