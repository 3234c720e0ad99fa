"""The trained weights of one training alone, in bfloat16: what a proxy's checkpoints need, a sixth of a resumable state.

A folder of `trained.safetensors` (by canonical name), `trained.json` (which base they belong to, by path and by content
digest), the base's `config.json` and the processor. `models.load.load` puts them on the base. Hugging Face alone cannot
load such a folder: it has no whole model.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ..store.errors import InputError
from ..store.files import read_json, write_json
from .parts import canonical

TRAINED, WEIGHTS = "trained.json", "trained.safetensors"


def plain_weights(
    named: Iterable[tuple[str, torch.nn.Parameter]], dtype: torch.dtype | None = None
) -> dict[str, torch.Tensor]:
    """Return parameters as tensors to be written: by canonical name, copied, on the CPU; `dtype` None keeps theirs."""
    return {canonical(n): p.detach().to(dtype or p.dtype, copy=True).cpu().contiguous() for n, p in named}


def save_trained(
    folder: str, named: Iterable[tuple[str, torch.nn.Parameter]], base: str, base_digest: str, steps: int
) -> None:
    """Write the parameters that require gradients, and whose base they change."""
    weights = plain_weights(((n, p) for n, p in named if p.requires_grad), torch.bfloat16)
    save_file(weights, os.path.join(folder, WEIGHTS), metadata={"format": "pt"})
    facts = name_base(base, base_digest, folder) | {"steps": steps, "weights": len(weights)}
    write_json(os.path.join(folder, TRAINED), facts)


def name_base(base: str, base_digest: str, folder: str) -> dict[str, Any]:
    """Return what a folder says of the model underneath, for `trained_base`."""
    base = os.path.abspath(base)
    # a run's folder that was moved as a whole still finds a base inside it
    return {"base": base, "base_digest": base_digest, "relative": os.path.relpath(base, folder)}


def trained_base(folder: Path, digest_of: Callable[[str], str], file: str = TRAINED) -> str:
    """Return the base that a folder of trained weights (or of MoReS: `file`) belongs to.

    Raises:
        InputError: it is neither where it was nor beside the folder, or its weights are others now.
    """
    facts = read_json(folder / file)
    places = [facts["base"], os.path.normpath(folder / facts["relative"])]
    found = [p for p in places if os.path.isdir(p)]
    if not found:
        raise InputError(f"{str(folder)!r} holds trained weights alone, and their base is gone: {places[0]!r}.")
    if digest_of(found[0]) != facts["base_digest"]:
        raise InputError(
            f"{str(folder)!r} was trained from {found[0]!r}, whose weights are others now. "
            "Put that model back, or train again."
        )
    return found[0]


def put_trained(model: Any, folder: Path) -> None:
    """Copy a folder's trained weights into their base, cast to its type.

    Raises:
        InputError: a weight is unknown to the model, or of another shape.
    """
    mine = {canonical(n): p for n, p in model.named_parameters()}
    weights = load_file(folder / WEIGHTS)
    wrong = [n for n, w in weights.items() if n not in mine or mine[n].shape != w.shape]
    if wrong or not weights:
        raise InputError(f"{str(folder / WEIGHTS)!r} does not fit its base: {wrong[:5] or 'it is empty'}.")
    with torch.no_grad():
        for name, weight in weights.items():
            mine[name].copy_(weight)
