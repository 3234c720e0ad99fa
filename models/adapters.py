"""The PEFT zoo: which adapter goes onto which Linears of the language model, by one spec.

`lora:` (`specs.LoraSpec`) stays the short way to LoRA; `peft:` names the method. Whatever it adds is the component `lora`.
PEFT has no bottleneck adapters (serial, tanh), so there are none here. Targets are leaf names inside the decoder's layers:
they cannot reach the vision tower, the projector or the LM head. Constants: spec MoReS §2.
"""

import re
from typing import Any

from torch import nn

from ..store.errors import InputError
from .registry import family_of
from .specs import DEFAULT_TARGETS, FEEDFORWARD, AdapterSpec


def target_regex(names: list[str], decoder: str) -> str:
    """Return the regex over whole module names that takes these leaf names in the layers of what is called `decoder`."""
    return rf"(model\.)?{re.escape(decoder)}\.layers\.\d+\..*?\b({'|'.join(names)})"


def add_adapter(model: nn.Module, spec: AdapterSpec) -> Any:
    """Wrap a model with fresh adapters of one method; the base's weights stop requiring gradients.

    Raises:
        InputError: the language model has no Linear of these names, or PEFT cannot put the method onto it.
    """
    from peft import get_peft_model

    family = family_of(model)
    there = {n.rsplit(".", 1)[-1] for n, m in family.decoder(model).layers.named_modules() if isinstance(m, nn.Linear)}
    # Phi-3 has queries, keys and values in one Linear: without a word, a method would lose its own
    wanted = spec.targets or [
        n for n in DEFAULT_TARGETS.get(spec.method, family.lora_names(model)) if n in there or n not in FEEDFORWARD
    ]
    if not set(wanted) <= there:
        raise InputError(
            f"peft.targets: the decoder's layers have {sorted(there)}, not all of {wanted}; name your own."
        )
    names = list(wanted)
    try:
        wrapped = get_peft_model(model, _config(spec, names, family.decoder_name))
    except (ValueError, TypeError) as error:  # another method may not know 4-bit layers
        raise InputError(f"PEFT cannot put {spec.method} onto this model: {error}.") from error
    return wrapped


def _config(spec: AdapterSpec, names: list[str], decoder: str) -> Any:
    import peft

    r, alpha, dropout = spec.numbers()
    where = {"target_modules": target_regex(names, decoder), "task_type": "CAUSAL_LM"}
    match spec.method:
        case "lora" | "dora":
            return peft.LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, use_dora=spec.method == "dora", **where)
        case "ia3":
            second = [n for n in names if n in FEEDFORWARD]
            forward = {"feedforward_modules": target_regex(second, decoder) if second else []}
            return peft.IA3Config(**forward, **where)
        case "oft":  # r blocks, of a size that the width gives
            return peft.OFTConfig(r=r, oft_block_size=0, module_dropout=dropout, **where)
        case "vera":
            return peft.VeraConfig(r=r, vera_dropout=dropout, **where)
        case _:
            kind = peft.LoHaConfig if spec.method == "loha" else peft.LoKrConfig
            return kind(r=r, alpha=alpha, rank_dropout=dropout, **where)
