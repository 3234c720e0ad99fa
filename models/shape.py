"""A model's sizes, from its config alone: every Linear of it with the rows that it sees, and parameters by component.

The model is built without weights and its own code is counted (`counting.py`), so any family of `registry.py` has a shape;
LoRA is what PEFT makes of it.
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig

from ..store.errors import InputError
from ..store.reading import reading, with_fields, wrong
from .components import asked, canonical, component_of, lora_targets, refuse_tied, tied_linears
from .counting import Counted, count, on_meta
from .folders import LOCAL, read_object
from .load import ADAPTER, adapter_base, check_folder
from .products import LINEARS
from .registry import UnknownFamilyError, family_of

Place = Literal["vision_tower", "projector", "language_model", "lm_head"]
HEAD: Place = "lm_head"
# of what never runs; a gradient passes everything deeper than the shallowest Linear that wants one
_NEVER = 1_000_000


class UnknownShapeError(InputError):
    """A checkpoint of no known family, or whose model cannot be built or counted without its weights."""


@dataclass(frozen=True)
class Dense:
    """One Linear: its name as in `named_modules`, sizes, which tokens it sees (`place`), and how deep it lies.

    `rows`: how many it sees, a picture (vision tower, projector), a token (decoder) or a label (head). `in_block`: others
    lie equally deep, in its layer.
    """

    name: str
    outputs: int
    inputs: int
    bias: bool
    place: Place
    depth: int
    rows: float = 1.0
    in_block: bool = False

    @property
    def component(self) -> str:
        """The component it belongs to (`specs.COMPONENTS`)."""
        return component_of(self.name + ".weight")

    @property
    def elements(self) -> int:
        """Parameters, bias included."""
        return self.outputs * self.inputs + self.outputs * self.bias


@dataclass(frozen=True)
class Architecture:
    """A Hugging Face config by the digest of its content."""

    digest: str
    config: Any = field(compare=False, repr=False)


@dataclass(frozen=True)
class Shape:
    """Sizes of a model: those of the decoder that memory depends on, in elements, and by `linears` all that is counted."""

    architecture: Architecture
    layers: int
    width: int
    ffn: int
    vocab: int
    lora_r: int = 0
    lora_targets: str | tuple[str, ...] = ""
    # a component without Linears and its parameters (MoReS, PEFT's other methods); its arithmetic is too small to count
    added: tuple[str, int] | None = None

    def with_lora(self, r: int, targets: str | Sequence[str] | None = None) -> "Shape":
        """Return the shape with adapters of rank `r`; as in PEFT, a text is a regex for whole names, a list endings.

        Without a word they go where the family puts them.
        """
        goal = _base(self.architecture).lora_targets if targets is None else targets
        return replace(self, lora_r=r, lora_targets=goal if isinstance(goal, str) else tuple(goal))

    @property
    def counted(self) -> Counted:
        """What the model computes, without adapters."""
        return _base(self.architecture).counted

    @property
    def decoder_name(self) -> str:
        """How names of modules call the decoder."""
        return family_of(self.architecture.config).decoder_name

    @property
    def image_tokens(self) -> int:
        """Tokens of the family's usual picture."""
        return self.counted.image_tokens

    @cached_property
    def linears(self) -> tuple[Dense, ...]:
        """Every Linear in the model's order, named as in memory (wrapped by PEFT where there is LoRA).

        Raises:
            InputError: PEFT cannot put LoRA there.
        """
        if not self.lora_r:
            return _base(self.architecture).linears
        return _adapted(self.architecture, self.lora_r, self.lora_targets)

    def chosen(self, which: str) -> list[Dense]:
        """Return the Linears that `components.pick_linears` would pick.

        Raises:
            InputError: as `pick_linears`.
        """
        keep = asked(which)
        chosen = [d for d in self.linears if keep(d.name)]
        if not chosen:
            raise InputError(f"gradients {which!r}: no Linear matches. For lora the proxy must be trained with LoRA.")
        refuse_tied((d.name for d in chosen), _base(self.architecture).tied)
        return chosen

    def parameters(self) -> dict[str, int]:
        """Return the parameters of each component, norms and embeddings included."""
        lora = {"lora": sum(d.elements for d in self.linears if d.component == "lora")} if self.lora_r else {}
        return _base(self.architecture).parameters | lora | dict([self.added] if self.added else [])


def read_shape(path: str) -> Shape:
    """Read the shape of a checkpoint folder, or of an adapter's base with its LoRA.

    Raises:
        InputError: no checkpoint there, or its config cannot be read.
        UnknownShapeError: of no known family, or it cannot be counted.
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
    width = getattr(getattr(_config(folder), "text_config", None), "hidden_size", None)
    if width is None:
        raise InputError(f"{str(folder / 'config.json')!r} has no text_config.hidden_size: it is no LLaVA.")
    with reading(folder / "config.json", "the config of a LLaVA"):
        return int(width)


def _config(folder: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, **LOCAL)
    except Exception as error:  # its fields are checked by classes with errors of their own
        raise InputError(f"{str(folder / 'config.json')!r} cannot be read: {wrong(error)}.") from error


def shape_of(config: Any) -> Shape:
    """Return the shape that a Hugging Face config describes.

    Raises:
        UnknownShapeError: of no known family, or it cannot be counted.
    """
    try:
        family = family_of(config)
    except UnknownFamilyError as error:
        raise UnknownShapeError(f"no formulas for {config.model_type!r}: {error}") from error
    text, digest = config.get_text_config(), hashlib.sha256(config.to_json_string(use_diff=False).encode()).hexdigest()
    architecture, width = Architecture(f"{family.name}-{digest}", config), family.width(config)
    _base(architecture)
    ffn = getattr(text, "intermediate_size", None) or 4 * width
    return Shape(architecture, text.num_hidden_layers, width, ffn, text.vocab_size)


@dataclass(frozen=True)
class _Base:
    """A model without adapters: its Linears (some tied), parameters by component, what it computes, where LoRA goes."""

    linears: tuple[Dense, ...]
    parameters: dict[str, int]
    counted: Counted
    lora_targets: str
    tied: set[str]


@lru_cache(maxsize=16)
def _base(architecture: Architecture) -> _Base:
    config = architecture.config
    try:
        model = on_meta(config)
        linears = {n: m for n, m in model.named_modules() if isinstance(m, LINEARS)}
        parameters: Counter[str] = Counter()
        for name, parameter in model.named_parameters():
            parameters[component_of(name)] += parameter.numel()
        targets, tied = lora_targets(model, None), tied_linears(model)
        counted = count(config, model)
    except Exception as error:  # any model's own code is run here
        label, kind = family_of(config).label, type(error).__name__
        raise UnknownShapeError(f"a {label} of this config cannot be counted: {kind}: {wrong(error)}.") from error
    dense = tuple(_dense(config, counted, name, linear) for name, linear in linears.items())
    return _Base(dense, dict(parameters), counted, targets, tied)


def _dense(config: Any, counted: Counted, name: str, module: Any) -> Dense:
    sizes = (module.out_features, module.in_features, module.bias is not None)
    if name in family_of(config).components.head:
        return Dense(name, *sizes, HEAD, _NEVER - 1)
    place: Any = component_of(name + ".weight")
    block = next((b for b in counted.blocks if name.startswith(f"{b}.")), None)
    depth = counted.order.get(name if block is None else block, _NEVER)
    return Dense(name, *sizes, place, depth, counted.rows.get(name, 0.0), block is not None)


@lru_cache(maxsize=16)
def _adapted(architecture: Architecture, r: int, targets: str | tuple[str, ...]) -> tuple[Dense, ...]:
    """Return the Linears of a model inside PEFT's wrapper; LoRA's see the rows of those that they go onto."""
    from peft import LoraConfig, get_peft_model

    model, plain = on_meta(architecture.config), {d.name: d for d in _base(architecture).linears}
    goal = targets if isinstance(targets, str) else list(targets)
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = get_peft_model(model, LoraConfig(r=r, target_modules=goal))
    except ValueError as error:
        raise InputError(f"PEFT cannot put LoRA of rank {r} onto {goal!r}: {wrong(error)}.") from error
    linears = []
    for name, module in model.named_modules():
        if isinstance(module, LINEARS):
            base = plain[canonical(name).removesuffix(".lora_A").removesuffix(".lora_B")]
            sizes = {"outputs": module.out_features, "inputs": module.in_features, "bias": module.bias is not None}
            linears.append(replace(base, name=name, **sizes))
    return tuple(linears)
