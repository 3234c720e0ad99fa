"""Mean gradients of target tasks, one file a checkpoint: what exact influence is measured against.

The file is safetensors: parameter name → [T, P], T tasks in the order of its metadata. `target_means.py` makes it.
"""

import os

import torch
from safetensors import SafetensorError, safe_open

from ..pool.reader import Pool
from ..store.errors import InputError
from ..store.names import AIMS
from ..store.reading import reading

ANEW = "Delete it, and make the features again."


def target_tasks(pool: str) -> list[str]:
    """Return the tasks of a target pool, in order: the columns of its influence features."""
    return sorted(set(Pool(pool).column("task").tolist()))


def means_folder(feature: str) -> str:
    """Return the folder of a feature's means in a store, and that of the targets refused on the way.

    Stores of before, when there was one such feature, go on.
    """
    return AIMS if feature == "influence" else f"{AIMS}-{feature}"


def means_path(out: str, feature: str, step: int) -> str:
    """Return where the means of a feature at a checkpoint stand.

    Raises:
        InputError: the output is not a path of a file system (safetensors are mapped, not streamed).
    """
    if "://" in out:
        raise InputError(f"{out!r}: influence needs an output folder that all nodes can open as a path, not a URI.")
    return os.path.join(out, means_folder(feature), f"step={step:08d}.safetensors")


def read_means(path: str, device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Read a file of means onto a device."""
    with reading(path, "means of targets", ANEW, (SafetensorError,)), safe_open(path, "pt", device=device) as file:
        return {name: file.get_tensor(name).to(dtype) for name in file.keys()}  # noqa: SIM118
