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
from safetensors.torch import save_file

from ..store.errors import InputError
from ..store.files import absolute, is_uri, write_json
from .components import canonical
from .folders import TRAINED, facts_of
from .tensors import put_tensors, read_tensors

WEIGHTS = "trained.safetensors"


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
    facts = name_base(base, base_digest, folder) | {"steps": steps, "weights": len(weights), "names": sorted(weights)}
    write_json(os.path.join(folder, TRAINED), facts)


def name_base(base: str, base_digest: str, folder: str) -> dict[str, Any]:
    """Return what a folder says of the model underneath, for `check_base`."""
    base = absolute(base)
    # a run's folder that was moved as a whole still finds a base inside it; of a URI there is no way from a local folder
    relative = os.path.join("..", os.path.basename(base)) if is_uri(base) else os.path.relpath(base, folder)
    return {"base": base, "base_digest": base_digest, "relative": relative}


def check_base(folder: Path, base: Path, digest_of: Callable[[str], str], file: str) -> None:
    """Compare the base that a folder of trained weights (or of MoReS: `file`) was trained from with what is there now.

    Raises:
        InputError: its weights, config or processor are others.
    """
    if digest_of(str(base)) != facts_of(folder, file)["base_digest"]:
        raise InputError(
            f"{str(folder)!r} was trained from {str(base)!r}, whose weights are others now, or its config or processor "
            "(or an older vinnow, with other digests, trained it). Put that model back, or train again."
        )


def put_trained(model: Any, folder: Path) -> None:
    """Copy a folder's trained weights into their base, cast to its type.

    Raises:
        InputError: a weight is unknown to the model, of another shape, or missing.
    """
    file, facts = folder / WEIGHTS, facts_of(folder, TRAINED)
    tensors = read_tensors(file, next(model.parameters()).is_meta)
    put_tensors(model, tensors, repr(str(file)))
    lost = sorted(set(facts.get("names", ())) - tensors.keys())
    if lost or len(tensors) != facts.get("weights", len(tensors)):
        raise InputError(
            f"{str(file)!r} holds {len(tensors)} tensors, {TRAINED} says {facts.get('weights')}; missing: {lost[:5]}."
        )
