"""Finding families of models: every file of `family/`, and of the folders that `VINNOW_FAMILIES` lists (as PATH does).

A family's file ends in `FAMILY = ItsClass` (see `protocol.py`). On a cluster every node needs the listed folders at the
same place.
"""

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from ..store.errors import InputError, suggest
from ..store.scan import classes_of, modules_of, refuse_lacking
from .missing import aside, lacking
from .protocol import Family, base_of

HERE = Path(__file__).parent / "family"
VARIABLE = "VINNOW_FAMILIES"
_OFFERED = ("name", "kinds", "label", "processors", "components", "class_of", "load_processor", "check_fit", "tiny")
_OFFERED += ("template", "reader", "image_id", "see", "connect", "blank")


class UnknownFamilyError(InputError):
    """No file holds a family of this type of model."""


def families() -> dict[str, Family]:
    """Return the families by name."""
    return _families(os.environ.get(VARIABLE, ""))


def kinds() -> list[str]:
    """List the values of `model_type` that are known."""
    return sorted(kind for family in families().values() for kind in family.kinds)


def find(kind: Any) -> Family:
    """Return the family of a `model_type`.

    Raises:
        UnknownFamilyError: there is none; says what the type lacks, or names the nearest.
        InputError: a family's file does not fit.
    """
    for family in families().values():
        if kind in family.kinds:
            return family
    if (why := lacking(kind, kinds())) is not None:
        raise UnknownFamilyError(f"{why}.")
    near = suggest(kind, kinds()) if isinstance(kind, str) else suggest("", kinds())
    raise UnknownFamilyError(f"no family of models is of type {kind!r}{aside(kind)}{near}")


def family_of(model: Any) -> Family:
    """Return the family of a model in memory, PEFT's wrapper around it or not, or of its config. Errors: as `find`."""
    base = base_of(model)
    return find(getattr(base, "config", base).model_type)


def family_of_processor(processor: Any) -> Family:
    """Return the family that a processor is of.

    Raises:
        UnknownFamilyError: there is none.
    """
    name, own = type(processor).__name__, getattr(processor, "family", None)
    for family in families().values():
        # processors of one class say themselves which family's they are
        if name in family.processors and own in (None, family.name):
            return family
    raise UnknownFamilyError(f"no family of models has a {name}.")


def base_component(name: str) -> str | None:
    """Name the model's own component that a parameter or module belongs to, by its name alone; None where none has it.

    A component may hold bare parameters of the model beside modules (LLaVA-NeXT's `image_newline`).

    Modules of one name are one component in every family, or the families are refused.
    """
    pattern, components = _components(os.environ.get(VARIABLE, ""))
    hit = pattern.search(name)
    return components[hit[1]] if hit else None


def plain_name(name: str) -> str:
    """Reduce a parameter's canonical name to what every version of its model shares, from its component on."""
    for family in families().values():
        for old, new in family.old.items():
            name = re.sub(old, new, name)
    hit = _components(os.environ.get(VARIABLE, ""))[0].search(name)
    return name[hit.start(1) :] if hit else name


@cache
def _families(extra: str) -> dict[str, Family]:
    package = __name__.rsplit(".", 1)[0]
    classes = classes_of(modules_of(f"{package}.family", HERE, VARIABLE), "FAMILY", "family", _check)
    families = {name: kind() for name, kind in classes.items()}
    owners: dict[str, str] = {}
    for name, family in families.items():
        for kind in family.kinds:
            if kind in owners:
                raise InputError(f"two families hold models of type {kind!r}: {owners[kind]} and {name}.")
            owners[kind] = name
    return families


@cache
def _components(extra: str) -> tuple[re.Pattern[str], dict[str, str]]:
    components: dict[str, str] = {}
    for family in _families(extra).values():
        for module, component in family.components.by_module().items():
            short = module.removeprefix("model.")
            if components.setdefault(short, component) != component:
                raise InputError(f"{family.name}: {module} is its {component}, another family's {components[short]}.")
    # at one place the longest name: a connector may lie inside the vision tower
    names = "|".join(map(re.escape, sorted(components, key=len, reverse=True)))
    return re.compile(rf"(?:^|(?<=\.))({names})(?=\.|$)"), components


def _check(family: type[Any], file: Path) -> None:
    refuse_lacking(family, _OFFERED, file, "models/protocol.py")
