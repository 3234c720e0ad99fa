"""A model's sizes, read from its config alone: every Linear by name, and parameters by part. No weights are touched.

CLIP tower, a projector of Linears, LLaMA-like decoder (a gate; no biases but Qwen2's); LoRA where there is an adapter.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from transformers import AutoConfig

from ..store.errors import InputError
from ..store.reading import reading, with_fields, wrong
from .folders import LOCAL, read_object
from .load import ADAPTER, adapter_base, check_folder
from .parts import asked, part_of
from .registry import UnknownFamilyError, family_of

Place = Literal["vision_tower", "projector", "language_model", "lm_head"]
HEAD: Place = "lm_head"
# depths: a gradient passes everything deeper than the shallowest Linear that wants one
_PROJECTOR, _DECODER, _HEAD = 10_000, 20_000, 30_000


class UnknownShapeError(InputError):
    """A checkpoint whose architecture these formulas do not cover."""


@dataclass(frozen=True)
class Dense:
    """One Linear: its name as in `named_modules`, sizes, which tokens it sees (`place`), and how deep it lies."""

    name: str
    outputs: int
    inputs: int
    bias: bool
    place: Place
    depth: int

    @property
    def part(self) -> str:
        """The part it belongs to (`parts.PARTS`)."""
        return part_of(self.name + ".weight")

    @property
    def elements(self) -> int:
        """Parameters, bias included."""
        return self.outputs * self.inputs + self.outputs * self.bias


@dataclass(frozen=True)
class Places:
    """Names in memory: of blocks of tower and decoder and Linears of the projector, without their numbers, and of the head.

    `targets`: the regex over whole names of Linears that LoRA goes onto where nothing else is asked for.
    """

    vision: str
    projector: str
    decoder: str
    head: str
    targets: str


@dataclass(frozen=True)
class Shape:
    """Sizes of a model. Widths in elements; `vision_tokens` with the class token; `image_tokens` reach the decoder."""

    vision_layers: int
    vision_width: int
    vision_ffn: int
    vision_tokens: int
    patch_inputs: int
    projector_inputs: int
    projector_bias: bool
    image_tokens: int
    layers: int
    width: int
    query_width: int
    kv_width: int
    ffn: int
    vocab: int
    places: Places
    qkv_bias: bool = False
    tied: bool = False
    projector_layers: int = 2
    # norms of queries and keys by head (Qwen3): elements of one
    head_norm: int = 0
    lora_r: int = 0
    lora_targets: str | tuple[str, ...] = ""
    # a part without Linears and its parameters (MoReS, PEFT's other methods); its arithmetic is too small to count
    added: tuple[str, int] | None = None

    def with_lora(self, r: int, targets: str | Sequence[str] | None = None) -> "Shape":
        """Return the shape with adapters of rank `r`; as in PEFT, a text is a regex for whole names, a list endings."""
        targets = self.places.targets if targets is None else targets
        return replace(self, lora_r=r, lora_targets=targets if isinstance(targets, str) else tuple(targets))

    @cached_property
    def linears(self) -> tuple[Dense, ...]:
        """Every Linear in the model's order, named as in memory (wrapped by PEFT where there is LoRA)."""
        plain = [*self._vision(), *self._projector(), *self._decoder()]
        plain.append(Dense(self.places.head, self.vocab, self.width, False, HEAD, _HEAD))
        return tuple(d for p in plain for d in self._adapted(p)) if self.lora_r else tuple(plain)

    def chosen(self, which: str) -> list[Dense]:
        """Return the Linears that `parts.pick_linears` would pick.

        Raises:
            InputError: unknown choice, broken regex, or nothing matches.
        """
        keep = asked(which)
        found = [d for d in self.linears if keep(d.name)]
        if not found:
            raise InputError(f"gradients {which!r}: no Linear matches. For lora the proxy must be trained with LoRA.")
        return found

    def parameters(self) -> dict[str, int]:
        """Return the parameters of each part, norms and embeddings included."""
        counts: Counter[str] = Counter()
        for dense in self.linears:
            counts[dense.part] += 0 if dense.place == HEAD and self.tied else dense.elements
        v = self.vision_width
        # class and position embeddings, patches, a norm before, one behind, two a layer
        counts["vision_tower"] += v * (1 + self.vision_tokens + self.patch_inputs) + 4 * v * (1 + self.vision_layers)
        counts["language_model"] += self.width * (self.vocab + 2 * self.layers + 1) + 2 * self.head_norm * self.layers
        return dict(counts) | dict([self.added] if self.added else [])

    def _vision(self) -> list[Dense]:
        w, f, found = self.vision_width, self.vision_ffn, []
        sizes = [(f"self_attn.{n}_proj", w, w) for n in ("k", "v", "q", "out")] + [("mlp.fc1", f, w), ("mlp.fc2", w, f)]
        for i in range(self.vision_layers):
            at = f"{self.places.vision}{i}"
            found += [Dense(f"{at}.{n}", o, x, True, "vision_tower", i) for n, o, x in sizes]
        return found

    def _projector(self) -> list[Dense]:
        at, inputs = self.places.projector, [self.projector_inputs] + [self.width] * self.projector_layers
        return [
            Dense(f"{at}{k + 1}", self.width, inputs[k], self.projector_bias, "projector", _PROJECTOR + k)
            for k in range(self.projector_layers)
        ]

    def _decoder(self) -> list[Dense]:
        w, q, kv, f, found = self.width, self.query_width, self.kv_width, self.ffn, []
        sizes = [("self_attn.q_proj", q, w), ("self_attn.k_proj", kv, w), ("self_attn.v_proj", kv, w)]
        sizes += [("self_attn.o_proj", w, q), ("mlp.gate_proj", f, w), ("mlp.up_proj", f, w), ("mlp.down_proj", w, f)]
        for i in range(self.layers):
            for k, (name, outputs, inputs) in enumerate(sizes):
                full = f"{self.places.decoder}{i}.{name}"
                found.append(Dense(full, outputs, inputs, self.qkv_bias and k < 3, "language_model", _DECODER + i))
        return found

    def _adapted(self, dense: Dense) -> list[Dense]:
        name, goal = f"base_model.model.{dense.name}", self.lora_targets
        if isinstance(goal, str):
            hit = re.fullmatch(goal, dense.name) is not None
        else:
            hit = any(f".{dense.name}".endswith(f".{t}") for t in goal)
        if not hit:
            return [replace(dense, name=name)]
        low = replace(dense, name=f"{name}.lora_A.default", outputs=self.lora_r, bias=False)
        high = replace(dense, name=f"{name}.lora_B.default", inputs=self.lora_r, bias=False)
        return [replace(dense, name=f"{name}.base_layer"), low, high]


def read_shape(path: str) -> Shape:
    """Read the shape of a checkpoint folder, or of an adapter's base with its LoRA.

    Raises:
        InputError: no checkpoint there, or its config cannot be read.
        UnknownShapeError: not a LLaVA of the architectures above.
    """
    folder = check_folder(path)
    if (folder / ADAPTER).is_file():
        below, facts = read_shape(str(adapter_base(folder))), read_object(folder / ADAPTER)
        if facts.get("peft_type", "LORA") != "LORA":
            return replace(below, added=("lora", 0))
        kinds = {"r": int, "target_modules": str | list[str]}
        facts = with_fields(facts, kinds, str(folder / ADAPTER), "LoRA's config")
        return below.with_lora(facts["r"], facts["target_modules"])
    with reading(folder / "config.json", "the config of a LLaVA"):
        return shape_of(_config(folder))


def hidden_size(path: str) -> int:
    """Return the language model's values a token, of a checkpoint folder or an adapter's base, of any architecture.

    Raises:
        InputError: no checkpoint there, or its config cannot be read or does not say.
    """
    folder = check_folder(path)
    if (folder / ADAPTER).is_file():
        return hidden_size(str(adapter_base(folder)))
    found = getattr(getattr(_config(folder), "text_config", None), "hidden_size", None)
    if found is None:
        raise InputError(f"{str(folder / 'config.json')!r} has no text_config.hidden_size: it is no LLaVA.")
    with reading(folder / "config.json", "the config of a LLaVA"):
        return int(found)


def _config(folder: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, **LOCAL)
    except Exception as error:  # its fields are checked by classes with errors of their own
        raise InputError(f"{str(folder / 'config.json')!r} cannot be read: {wrong(error)}.") from error


def shape_of(config: Any) -> Shape:
    """Return the shape that a Hugging Face config describes.

    Raises:
        UnknownShapeError: there are no formulas for it.
    """
    try:
        family = family_of(config)
    except UnknownFamilyError as error:
        raise UnknownShapeError(f"no formulas for {config.model_type!r}: {error}") from error
    return family.shape(config)
