"""The components of a model by name: what trains, which Linear modules are tapped, where LoRA goes.

Names are the in-memory ones of transformers 5, in which each family says where its components lie (`protocol.py`); those on
disk differ (spec: LLaVA §9).
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from ..store.errors import InputError, suggest
from .products import LINEARS, Product, weight_name
from .protocol import base_of as base_of
from .registry import base_component, family_of
from .specs import COMPONENTS, LoraSpec

# whatever is added to a model: by PEFT (models/adapters.py: LoRA, DoRA, IA3, OFT, VeRA, LoHa, LoKr), and MoReS
_ADDED = {
    "lora": re.compile(r"\.(lora_[AB]|lora_magnitude_vector|ia3_l|oft_R|vera_(lambda_[bd]|[AB])|hada_\w+|lokr_\w+)\."),
    "mores": re.compile(r"(^|\.)mores\."),
}


def component_of(name: str) -> str:
    """Name the component that a parameter or module belongs to; what is added wins over what it sits in."""
    for component, pattern in _ADDED.items():
        if pattern.search(name):
            return component
    component = base_component(name)
    if component is None:
        raise InputError(f"parameter {name!r} belongs to no known part of a LLaVA: {COMPONENTS}.")
    return component


def set_trainable(model: nn.Module, components: list[str] | tuple[str, ...]) -> list[str]:
    """Let exactly these components require gradients and return the parameters' names.

    Raises:
        InputError: an unknown component, or one that the model does not have (LoRA on a model without adapters).
    """
    for component in components:
        if component not in COMPONENTS:
            raise InputError(f"unknown part {component!r}{suggest(component, COMPONENTS)}")
    chosen = []
    for name, parameter in model.named_parameters():
        wanted = component_of(name) in components
        parameter.requires_grad_(wanted)
        if wanted:
            chosen.append(name)
    absent = [p for p in components if not any(component_of(n) == p for n in chosen)]
    if absent:
        raise InputError(f"the model has no parameters of {absent}; for lora or mores, give its config.")
    return chosen


def pick_linears(model: nn.Module, which: str) -> dict[str, Any]:
    """Return the Linears, and products (`products.py`), whose gradients are asked for, by canonical name, in order.

    `which` is `projector`, `lora`, `projector+lora`, or `re:` and a regular expression over module names.

    Raises:
        InputError: unknown choice, broken regex, nothing matches, or a head whose weight is the words' embedding too.
    """
    if "lora" in which and any(getattr(c, "use_dora", False) for c in getattr(model, "peft_config", {}).values()):
        raise InputError("gradients of LoRA: this is DoRA, whose products are no plain Linears. Ask for the projector.")
    keep = asked(which)
    linears = {n: m for n, m in model.named_modules() if isinstance(m, LINEARS) and keep(n)}
    if not linears:
        raise InputError(f"gradients {which!r}: no Linear module matches. For lora the checkpoint must be an adapter.")
    linears = {canonical(n): m for n, m in linears.items()}
    refuse_tied(linears, tied_linears(model))
    return linears


def tied_linears(model: nn.Module) -> set[str]:
    """Return the Linears, by canonical name, whose weight is the words' embedding too."""
    words = getattr(base_of(model).get_input_embeddings(), "weight", None)
    return {canonical(n) for n, m in model.named_modules() if isinstance(m, nn.Linear) and m.weight is words}


def refuse_tied(names: Iterable[str], tied: set[str]) -> None:
    """Refuse gradients of a weight that is also used where no Linear sees it.

    Raises:
        InputError: one of the names is tied.
    """
    both = sorted(tied & {canonical(n) for n in names})
    if both:
        raise InputError(
            f"gradients of {both[0]!r}: its weight is the words' embedding too (tied), and the part of its gradient that "
            "comes from there is no Linear's. Leave it out of the regex."
        )


def asked(which: str) -> Callable[[str], bool]:
    """Return whether a Linear of a given name is among the gradients asked for; `which` as in `pick_linears`.

    Raises:
        InputError: unknown choice, or broken regex.
    """
    known = ("projector", "lora", "projector+lora")
    if which.startswith("re:"):
        try:
            pattern = re.compile(which[3:])
        except re.error as error:
            raise InputError(f"{which!r} is not a regular expression: {error}.") from error
        return lambda name: bool(pattern.search(name))
    if which not in known:
        raise InputError(f"unknown gradients {which!r}{suggest(which, known)} Or `re:` and a regex over module names.")
    components = which.split("+")
    return lambda name: (
        ("lora" in components and bool(_ADDED["lora"].search(name + ".")))
        or ("projector" in components and base_component(name + ".") == "projector")
    )


def parameters_of(modules: dict[str, Any]) -> dict[str, nn.Parameter]:
    """Return the parameters of named Linears, as `NAME.weight` and `NAME.bias`, in order; of products what they hold."""
    named = {}
    for name, module in modules.items():
        if isinstance(module, Product):
            named[weight_name(name, module)] = module.kept
        named |= {f"{name}.{kind}": p for kind, p in module.named_parameters(recurse=False)}
    return named


def canonical(name: str) -> str:
    """Strip PEFT's wrapping from a name, so that a parameter is called the same with and without it."""
    return name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".default", "")


def add_lora(model: nn.Module, spec: LoraSpec) -> Any:
    """Wrap a model with fresh LoRA adapters; the base's weights stop requiring gradients.

    Raises:
        InputError: `spec.targets` is no regex, matches nothing, or reaches more than Linears of the decoder's layers.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=spec.r,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=lora_targets(model, spec.targets),
        init_lora_weights=True if spec.init == "zero_b" else "gaussian",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def lora_targets(model: nn.Module, targets: str | None) -> str:
    """Return the regex over whole names of the Linears that LoRA goes onto; None: all in the decoder's blocks.

    Raises:
        InputError: as `add_lora`.
    """
    family = family_of(model)
    names = family.lora_names(model)
    layers = rf"{re.escape(family.decoder_name)}\.layers\."
    if targets is None:
        return rf".*{layers}.*\.({'|'.join(names)})"
    try:
        pattern = re.compile(targets)
    except re.error as error:
        raise InputError(f"lora.targets {targets!r} is not a regular expression: {error}.") from error
    # as PEFT matches; containers aside, which it passes over
    modules = {n: m for n, m in model.named_modules() if pattern.fullmatch(n) and not any(m.children())}
    inside = re.compile(rf"(^|\.){layers}")
    astray = [n for n, m in modules.items() if not (inside.search(n) and isinstance(m, nn.Linear))]
    if astray or not modules:
        raise InputError(
            f"lora.targets {targets!r} reaches {astray[:4] or 'nothing'}: LoRA goes onto Linears of the language model's "
            f"layers alone, here {names}. Leave targets out for all of them."
        )
    return targets
