"""What may be asked of a model, as configs and names alone: importing this loads neither torch nor transformers.

Commands that only read a run's config (`vinnow status`, `select`, `plan`) start in a fraction of a second because of it.
The modules that carry a spec out stand beside: `components.py`, `adapters.py`, `mores.py`, `family/of_llava/`.
"""

import re
from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from ..store.config import Config
from ..store.errors import InputError, suggest
from .family.of_llava.llms import LLMS
from .family.of_llava.towers import TOWERS

# what per-sample gradients are turned into (`taps/modes.py`)
Mode = Literal["sgd", "sign", "less_adam", "adam"]
NEED_MOMENTS = ("less_adam", "adam")
# how attention is read (`taps/attention.py`)
Reading = Literal["flat", "heads", "xmas"]
# what an embedding is the mean of (`taps/forward.py`)
Pooling = Literal["text", "image", "both"]


def pooled_width(hidden: int, pooling: Pooling) -> int:
    """Return the width of an embedding, of a model of `hidden` values a token."""
    return hidden * (2 if pooling == "both" else 1)


# what logits take of an actor at one time, as float32: 2,097 label positions at 32,000 words, 441 at 152,000
LOGIT_BYTES = 256 << 20


def logit_rows(vocab: int) -> int:
    """Return how many label positions have logits at one time, of a model of `vocab` words."""
    return max(1, LOGIT_BYTES // (4 * vocab))


COMPONENTS = ("vision_tower", "projector", "language_model", "lora", "mores")

METHODS = ("lora", "dora", "ia3", "oft", "vera", "loha", "lokr")
# (r, alpha, dropout) where a method has them
_NUMBERS: dict[str, tuple[int | None, int | None, float | None]] = {
    "lora": (128, 256, 0.05),
    "dora": (128, 256, 0.05),
    "ia3": (None, None, None),
    "oft": (16, None, 0.0),
    "vera": (256, None, 0.0),
    "loha": (8, 8, 0.0),
    "lokr": (8, 8, 0.0),
}
# the rest goes onto every Linear of the decoder's layers
DEFAULT_TARGETS = {"ia3": ("k_proj", "v_proj", "fc2", "down_proj"), "oft": ("q_proj", "k_proj", "v_proj")}
FEEDFORWARD = ("fc2", "down_proj")

# of the others: one Linear, or none
CONNECTOR_KINDS = ("linear", "identity", "resampler", "qformer")
PLAIN = "mlp2x_gelu"
MLP = re.compile(r"mlp([1-9])x_gelu")
# layers and heads where a connector has them (TinyLLaVA: a resampler of 3 layers, a q-former of BERT-base's size)
_SIZES = {"resampler": (3, 8), "qformer": (12, 12)}

POLICY = re.compile(r"f(\d+)\+l(\d+)|uniform(\d+)|ratio(\d*\.?\d+)")
_RANGE = re.compile(r"(\d*):(\d*)")


class LoraSpec(Config):
    """LoRA on the language model's Linear layers; defaults are LLaVA-1.5's (r=128, alpha=256, dropout 0.05)."""

    r: int = Field(128, ge=1, description="The rank.")
    alpha: int = Field(256, ge=1, description="The scale: what is added is multiplied by alpha / r.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout before the adapter.")
    targets: str | None = Field(
        None,
        description="A regex for whole module names, of Linears in the decoder's layers alone; null: all that the "
        "language model's entry names.",
    )
    init: Literal["zero_b", "gaussian"] = Field(
        "zero_b", description="B begins at zero with A uniform, or with A from a Gaussian."
    )


class AdapterSpec(Config):
    """One PEFT method."""

    method: Literal["lora", "dora", "ia3", "oft", "vera", "loha", "lokr"] = Field("lora", description="PEFT's method.")
    r: int | None = Field(
        None,
        ge=1,
        description="Its rank (OFT: blocks); null: the method's own constant (LoRA and DoRA 128, OFT 16 blocks, "
        "VeRA 256, LoHa and LoKr 8). IA3 has none.",
    )
    alpha: int | None = Field(
        None,
        ge=1,
        description="Its scale; null: the method's own (LoRA and DoRA 256, LoHa and LoKr 8). IA3, OFT and VeRA have none.",
    )
    dropout: float | None = Field(
        None, ge=0, lt=1, description="Its dropout; null: the method's own (LoRA and DoRA 0.05). IA3 has none."
    )
    targets: list[str] | None = Field(
        None,
        description="Leaf names such as q_proj; null: IA3 takes keys, values and the second feed-forward Linear, "
        "OFT queries, keys and values, the others every Linear of the decoder's layers.",
    )

    @model_validator(mode="after")
    def _fits(self) -> "AdapterSpec":
        for name, own in zip(("r", "alpha", "dropout"), _NUMBERS[self.method], strict=True):
            if own is None and getattr(self, name) is not None:
                raise ValueError(f"{self.method} has no {name}; remove it")
        for name in self.targets or ():
            if not re.fullmatch(r"\w+", name):
                raise ValueError(f"targets are names of Linears such as q_proj, not {name!r}")
        return self

    def numbers(self) -> tuple[int | None, int | None, float | None]:
        """Return r, alpha and dropout as they will be used."""
        own = (self.r, self.alpha, self.dropout)
        return tuple(o if g is None else g for g, o in zip(own, _NUMBERS[self.method], strict=True))  # type: ignore[return-value]

    def parameters(self, linears: Iterable[tuple[str, int, int]]) -> int:
        """Return how many parameters are trained on Linears of the decoder's layers, each (leaf name, outputs, inputs)."""
        listed = list(linears)
        asked = self.targets or DEFAULT_TARGETS.get(self.method) or {leaf for leaf, _, _ in listed}
        return sum(_added(self, *linear) for linear in listed if linear[0] in asked)


def _added(spec: AdapterSpec, leaf: str, outputs: int, inputs: int) -> int:
    """Return one Linear's share, as PEFT lays the methods out (tests/models/test_adapters.py counts both)."""
    rank = spec.numbers()[0] or 0
    match spec.method:
        case "ia3":
            return inputs if leaf in FEEDFORWARD else outputs
        case "oft":  # the upper triangle of each block's skew-symmetric matrix
            block = inputs // rank
            return rank * block * (block - 1) // 2
        case "vera":  # the matrices are frozen and shared
            return outputs + rank
        case "loha":
            return 2 * rank * (inputs + outputs)
        case "lokr":
            from peft.tuners.lokr.layer import factorization

            (first, last), (top, bottom) = factorization(inputs, -1), factorization(outputs, -1)
            whole = rank >= max(bottom, last) / 2
            return top * first + (bottom * last if whole else rank * (bottom + last))
        case _:
            return rank * (inputs + outputs) + (outputs if spec.method == "dora" else 0)


class MoresSpec(Config):
    """What is steered, and how; defaults are the shipped run's (r=4, f4+l5, all layers; spec: MoReS §1.3, §1.5)."""

    rank: int = Field(4, ge=1, description="The rank of the steering.")
    layers: str | list[int] = Field(
        "all", description='"all", a list of numbers, or a range "8:16" (the end not included).'
    )
    positions: str = Field(
        "f4+l5",
        description='Which of the row\'s image tokens, counted over all its pictures: "f4+l5" the first 4 and last '
        '5 (all, where there are fewer than 9), "uniform9" nine, from the first one on at a whole '
        'distance of (n - 1) // 8, as published, "ratio0.1" a tenth of them, evenly spaced.',
    )
    share: bool = Field(
        True,
        description="One steering for all positions; false: the lower half of the layers steers the first tokens, "
        "the upper half the last ones.",
    )
    orthogonal: bool = Field(True, description="R is orthogonal; false: the D×r parameter itself.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Acts on what is added.")
    start: Literal["published", "identity"] = Field(
        "published",
        description="published (R orthogonal, W and b as in nn.Linear) or identity (W = Rᵀ, b = 0: no change yet).",
    )

    @model_validator(mode="after")
    def _fits(self) -> "MoresSpec":
        policy = POLICY.fullmatch(self.positions)
        if policy is None:
            raise ValueError(f"positions are f4+l5, uniform9 or ratio0.1 (any numbers), not {self.positions!r}")
        if not any(float(n) for n in policy.groups() if n is not None):
            raise ValueError(f"positions {self.positions!r} steer no token")
        if policy[4] is not None and float(policy[4]) > 1:
            raise ValueError(f"positions {self.positions!r}: a ratio is at most 1")
        if not self.share and (policy[1] is None or not int(policy[1]) or not int(policy[2])):
            raise ValueError("share: false divides the layers between first and last tokens: positions must be f4+l5")
        if isinstance(self.layers, str) and self.layers != "all" and not _RANGE.fullmatch(self.layers):
            raise ValueError(f"layers are all, a range 8:16 or a list of numbers, not {self.layers!r}")
        return self

    def chosen_layers(self, count: int) -> list[int]:
        """Return the steered layers of a decoder with `count` of them, ascending.

        Raises:
            InputError: a layer that the decoder does not have, one twice, or none at all.
        """
        if isinstance(self.layers, list):
            chosen = sorted(self.layers)
            if len(set(chosen)) != len(chosen) or any(not 0 <= i < count for i in chosen):
                raise InputError(f"mores.layers {self.layers}: give each of 0 to {count - 1} at most once.")
        else:
            span = _RANGE.fullmatch(self.layers)
            chosen = list(range(count))[slice(*(int(n) if n else None for n in span.groups())) if span else slice(None)]
        if not chosen:
            raise InputError(f"mores.layers {self.layers!r} names none of the {count} layers.")
        return chosen

    def parameters(self, layers: int, width: int) -> int:
        """Return the number of trained elements, L·(2·D·r + r) (spec: MoReS §1.4)."""
        return len(self.chosen_layers(layers)) * (2 * width * self.rank + self.rank)


class ConnectorSpec(Config):
    """What joins the tower and the language model."""

    kind: str = Field(
        PLAIN,
        description="linear, mlp1x_gelu to mlp9x_gelu, identity, resampler or qformer; all but the last two give "
        "one token per patch.",
    )
    queries: int | None = Field(None, ge=1, description="Tokens per picture of resampler and qformer; null: 128.")
    width: int | None = Field(None, ge=1, description="Their width; null: 768.")
    layers: int | None = Field(None, ge=1, description="Their layers; null: 3 (resampler) or 12 (qformer).")
    heads: int | None = Field(None, ge=1, description="Their heads; null: 8 (resampler) or 12 (qformer).")

    @model_validator(mode="after")
    def _fits(self) -> "ConnectorSpec":
        if self.kind not in CONNECTOR_KINDS and not MLP.fullmatch(self.kind):
            raise ValueError(f"unknown connector {self.kind!r}{suggest(self.kind, [*CONNECTOR_KINDS, PLAIN])}")
        sizes = [n for n in ("queries", "width", "layers", "heads") if getattr(self, n) is not None]
        if sizes and self.kind not in _SIZES:
            raise ValueError(f"{self.kind} has no {sizes[0]}; remove it")
        if self.kind in _SIZES and self.sizes()[0] % self.sizes()[2]:
            raise ValueError(f"width {self.sizes()[0]} is no multiple of heads {self.sizes()[2]}")
        return self

    @property
    def plain(self) -> bool:
        """Say whether Hugging Face's own class holds it."""
        return self.kind == PLAIN

    def tokens(self, patches: int) -> int:
        """Return how many tokens a picture of so many tower tokens becomes."""
        return (self.queries or 128) if self.kind in _SIZES else patches

    def sizes(self) -> tuple[int, int, int]:
        """Return width, layers and heads as they will be used."""
        layers, heads = _SIZES[self.kind]
        return self.width or 768, self.layers or layers, self.heads or heads

    def linears(self) -> int | None:
        """Return the number of Linears of a stack of them; None for other kinds."""
        mlp = MLP.fullmatch(self.kind)
        return int(mlp[1]) if mlp else (1 if self.kind == "linear" else None)


class TinyModelConfig(Config):
    """Parts and sizes of the twin.

    `llm` is a key of `family.of_llava.llms.LLMS`, `tower` one of `family.of_llava.towers.TOWERS`.
    """

    llm: str = Field("llama", description="The kind of language model.")
    tower: str = Field("clip", description="The kind of vision tower.")
    connector: ConnectorSpec = Field(ConnectorSpec(), description="What joins them.")
    image: int = Field(64, ge=8, description="The side of a picture in pixels; (image / patch)² image tokens.")
    patch: int = Field(16, ge=2, description="The side of a patch in pixels.")
    vision_hidden: int = Field(64, description="The tower's width.")
    vision_layers: int = Field(2, ge=1, description="The tower's layers.")
    hidden: int = Field(64, description="The decoder's width.")
    layers: int = Field(2, ge=1, description="The decoder's layers.")
    heads: int = Field(4, description="Attention heads of both.")
    ffn: int = Field(128, description="The width of feed-forward layers.")
    vocab: int = Field(1000, ge=300, description="The tokenizer's words.")
    max_len: int = Field(512, description="The longest row in tokens.")
    feature_layer: int = Field(-2, description="The tower's hidden state that is read.")
    init_std: float = Field(0.02, gt=0, description="The standard deviation of random weights.")
    seed: int = Field(0, description="Draws the weights.")

    @model_validator(mode="after")
    def _known(self) -> "TinyModelConfig":
        for name, table in ((self.llm, LLMS), (self.tower, TOWERS)):
            if name not in table:
                raise ValueError(f"unknown part {name!r}{suggest(name, table)}")
        return self
