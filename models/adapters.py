"""The PEFT zoo: which adapter goes onto which Linears of the language model, by one spec.

`lora:` (`parts.LoraSpec`) stays the short way to LoRA; `peft:` names the method. Whatever it adds is the part `lora`.
PEFT has no bottleneck adapters (serial, tanh), so there are none here. Targets are leaf names inside the decoder's layers:
they cannot reach the vision tower, the projector or the LM head. Constants: spec MoReS §2.
"""

import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import nn

from ..store.config import Config
from ..store.errors import InputError
from .family.llms import lora_names
from .parts import base_of

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
_NAMES = {"ia3": ("k_proj", "v_proj", "fc2", "down_proj"), "oft": ("q_proj", "k_proj", "v_proj")}
_FEEDFORWARD = ("fc2", "down_proj")


class AdapterSpec(Config):
    """One PEFT method; None means its own constant (LoRA and DoRA 128, 256, 0.05; OFT 16 blocks; VeRA 256).

    `targets`: leaf names such as `q_proj`; by default IA3 takes keys, values and the second feed-forward Linear, OFT
    queries, keys and values, the others every Linear of the decoder's layers. IA3 has no `r`, `alpha` or `dropout`, OFT
    and VeRA no `alpha`.
    """

    method: Literal["lora", "dora", "ia3", "oft", "vera", "loha", "lokr"] = "lora"
    r: int | None = Field(None, ge=1)
    alpha: int | None = Field(None, ge=1)
    dropout: float | None = Field(None, ge=0, lt=1)
    targets: list[str] | None = None

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
        given = (self.r, self.alpha, self.dropout)
        return tuple(o if g is None else g for g, o in zip(given, _NUMBERS[self.method], strict=True))  # type: ignore[return-value]

    def parameters(self, linears: Iterable[tuple[str, int, int]]) -> int:
        """Return how many parameters are trained on Linears of the decoder's layers, each (leaf name, outputs, inputs)."""
        found = list(linears)
        asked = self.targets or _NAMES.get(self.method) or {leaf for leaf, _, _ in found}
        return sum(_added(self, *linear) for linear in found if linear[0] in asked)


def _added(spec: AdapterSpec, leaf: str, outputs: int, inputs: int) -> int:
    """Return one Linear's share, as PEFT lays the methods out (tests/models/test_adapters.py counts both)."""
    rank = spec.numbers()[0] or 0
    match spec.method:
        case "ia3":
            return inputs if leaf in _FEEDFORWARD else outputs
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


def target_regex(names: list[str]) -> str:
    """Return the regex over whole module names that takes these leaf names in the decoder's layers."""
    return rf"(model\.)?language_model\.layers\.\d+\..*?\b({'|'.join(names)})"


def add_adapter(model: nn.Module, spec: AdapterSpec) -> Any:
    """Wrap a LLaVA with fresh adapters of one method; the base's weights stop requiring gradients.

    Raises:
        InputError: the language model has no Linear of these names, or PEFT cannot put the method onto it.
    """
    from peft import get_peft_model

    lm = base_of(model).model.language_model
    there = {n.rsplit(".", 1)[-1] for n, m in lm.layers.named_modules() if isinstance(m, nn.Linear)}
    # Phi-3 has queries, keys and values in one Linear: without a word, a method would lose its own
    wanted = spec.targets or [n for n in _NAMES.get(spec.method, lora_names(lm)) if n in there or n not in _FEEDFORWARD]
    if not set(wanted) <= there:
        raise InputError(
            f"peft.targets: the decoder's layers have {sorted(there)}, not all of {wanted}; name your own."
        )
    names = list(wanted)
    try:
        wrapped = get_peft_model(model, _config(spec, names))
    except (ValueError, TypeError) as error:  # another method may not know 4-bit layers
        raise InputError(f"PEFT cannot put {spec.method} onto this model: {error}.") from error
    return wrapped


def _config(spec: AdapterSpec, names: list[str]) -> Any:
    import peft

    r, alpha, dropout = spec.numbers()
    where = {"target_modules": target_regex(names), "task_type": "CAUSAL_LM"}
    match spec.method:
        case "lora" | "dora":
            return peft.LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, use_dora=spec.method == "dora", **where)
        case "ia3":
            second = [n for n in names if n in _FEEDFORWARD]
            forward = {"feedforward_modules": target_regex(second) if second else []}
            return peft.IA3Config(**forward, **where)
        case "oft":  # r blocks, of a size that the width gives
            return peft.OFTConfig(r=r, oft_block_size=0, module_dropout=dropout, **where)
        case "vera":
            return peft.VeraConfig(r=r, vera_dropout=dropout, **where)
        case _:
            kind = peft.LoHaConfig if spec.method == "loha" else peft.LoKrConfig
            return kind(r=r, alpha=alpha, rank_dropout=dropout, **where)
