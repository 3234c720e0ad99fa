"""A folder of MoReS: `mores.safetensors` and `mores.json` (spec, and the base by path and content digest).

Beside them the base's `config.json`, the processor, and the trained projector (`non_lora.safetensors`). Interventions
depend on positions, so they cannot be merged into weights. Hugging Face alone cannot load such a folder.
"""

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ..store.errors import InputError
from ..store.files import write_json
from .components import base_of, component_of
from .folders import MORES, facts_of
from .mores import add_mores, mores_of
from .specs import MoresSpec
from .tensors import read_tensors, refuse_misfits, shapes_of
from .trained import name_base, plain_weights

WEIGHTS = "mores.safetensors"


def save_mores(model: Any, folder: str, base_digest: str, others: str, dtype: torch.dtype | None = None) -> None:
    """Write a model's MoReS, and in a file called `others` whatever else requires gradients (the projector)."""
    mores = mores_of(model)
    assert mores is not None
    base_of(model).config.save_pretrained(folder)
    save_file(plain_weights(mores.named_parameters(), dtype), os.path.join(folder, WEIGHTS), metadata={"format": "pt"})
    rest = [(n, p) for n, p in model.named_parameters() if p.requires_grad and component_of(n) != "mores"]
    if rest:
        save_file(plain_weights(rest, dtype), os.path.join(folder, others), metadata={"format": "pt"})
    facts = name_base(mores.base, base_digest, folder) | {"spec": mores.spec.model_dump(mode="json")}
    # a folder that was copied without this file must not pass for one that never had it
    facts["beside"] = others if rest else None
    write_json(os.path.join(folder, MORES), facts)


def put_mores(model: Any, folder: Path) -> None:
    """Give the base of a MoReS folder its interventions.

    Raises:
        InputError: weights and spec do not fit each other or the base.
    """
    facts = facts_of(folder, MORES)
    if not isinstance(facts.get("spec"), dict):
        raise InputError(f"{str(folder / MORES)!r} has no spec: which tokens are steered is unknown.")
    beside = facts.get("beside")
    if beside and not (folder / beside).is_file():
        raise InputError(f"{str(folder)!r} lacks {beside}, which {MORES} says was trained along: copy it there too.")
    spec = MoresSpec.parse(facts["spec"], f"{folder / MORES}: spec")
    try:
        mores = add_mores(model, spec)
    except InputError as error:
        raise InputError(f"{str(folder / MORES)!r}: its spec does not fit its base: {error}") from error
    mores.base = facts["base"]
    mine, file = dict(mores.named_parameters()), folder / WEIGHTS
    weights = read_tensors(file, next(iter(mine.values())).is_meta)
    refuse_misfits(f"{str(file)!r} (by the spec in {MORES})", shapes_of(weights.items()), shapes_of(mine.items()))
    with torch.no_grad():
        for name, weight in weights.items():
            if not mine[name].is_meta:
                mine[name].copy_(weight)
