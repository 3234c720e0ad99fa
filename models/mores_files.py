"""A folder of MoReS: `mores.safetensors` and `mores.json` (spec, and the base by path and content digest).

Beside them the base's `config.json`, the processor, and the trained projector (`non_lora.safetensors`). Interventions
depend on positions, so they cannot be merged into weights. Hugging Face alone cannot load such a folder.
"""

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ..store.errors import InputError
from ..store.files import read_json, write_json
from .mores import MoresSpec, add_mores, mores_of
from .parts import base_of, part_of
from .trained import name_base, plain_weights

MORES, WEIGHTS = "mores.json", "mores.safetensors"


def save_mores(model: Any, folder: str, base_digest: str, others: str, dtype: torch.dtype | None = None) -> None:
    """Write a model's MoReS, and in a file called `others` whatever else requires gradients (the projector)."""
    mores = mores_of(model)
    assert mores is not None
    base_of(model).config.save_pretrained(folder)
    save_file(plain_weights(mores.named_parameters(), dtype), os.path.join(folder, WEIGHTS), metadata={"format": "pt"})
    rest = [(n, p) for n, p in model.named_parameters() if p.requires_grad and part_of(n) != "mores"]
    if rest:
        save_file(plain_weights(rest, dtype), os.path.join(folder, others), metadata={"format": "pt"})
    facts = name_base(mores.base, base_digest, folder) | {"spec": mores.spec.model_dump(mode="json")}
    write_json(os.path.join(folder, MORES), facts)


def put_mores(model: Any, folder: Path) -> None:
    """Give the base of a MoReS folder its interventions.

    Raises:
        InputError: weights and spec do not fit each other or the base.
    """
    facts = read_json(folder / MORES)
    mores = add_mores(model, MoresSpec.parse(facts["spec"], f"{folder / MORES}: spec"))
    mores.base = facts["base"]
    mine, weights = dict(mores.named_parameters()), load_file(folder / WEIGHTS)
    if {n: p.shape for n, p in mine.items()} != {n: w.shape for n, w in weights.items()}:
        raise InputError(f"{str(folder / WEIGHTS)!r} does not fit {MORES} or its base: other names or shapes.")
    with torch.no_grad():
        for name, weight in weights.items():
            mine[name].copy_(weight)
