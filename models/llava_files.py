"""LLaVA's own files in and out: `mm_projector.bin` (stage 1) and `non_lora_trainables.bin` (LoRA), which are renames.

Both hold the projector by torch's pickle format, read with `weights_only=True`: `model.mm_projector.{0,2}.…`, behind
`base_model.model.` after LoRA, is `model.multi_modal_projector.linear_{1,2}.…` here (spec: LLaVA §6, §9).
"""

import os
import re
from pathlib import Path
from typing import Any

import torch

from ..store.errors import InputError
from .moment_files import torch_file
from .parts import base_of

PROJECTOR, NON_LORA_BIN = "mm_projector.bin", "non_lora_trainables.bin"
_KEY = re.compile(r"(?:.*\.)?mm_projector\.(\d+)\.(weight|bias)")
_LINEARS = {"0": "linear_1", "2": "linear_2"}


def read_projector(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Return the projector of one of LLaVA's files, named as in the projector module (`linear_1.weight`, …).

    Raises:
        InputError: no such file, not of tensors alone, or it holds something else than a two-layer projector.
    """
    if not Path(path).is_file():
        raise InputError(f"no file {str(path)!r}: give LLaVA's {PROJECTOR} or {NON_LORA_BIN}.")
    state = torch_file(Path(path))
    found: dict[str, torch.Tensor] = {}
    others = []
    for key, value in state.items():
        hit = _KEY.fullmatch(key)
        if hit is None or hit[1] not in _LINEARS or not isinstance(value, torch.Tensor):
            others.append(key)
        else:
            found[f"{_LINEARS[hit[1]]}.{hit[2]}"] = value
    if others or not found:
        raise InputError(
            f"{str(path)!r} holds {others[:4] or 'nothing'}, which is no part of a mlp2x_gelu projector "
            "(mm_projector.0 and mm_projector.2): Hugging Face's LLaVA has no other kind."
        )
    return found


def put_projector(model: Any, path: str | os.PathLike[str]) -> None:
    """Copy the projector of one of LLaVA's files into a model.

    Raises:
        InputError: as `read_projector`; or sizes, or biases, are not the model's.
    """
    mine = dict(base_of(model).model.multi_modal_projector.named_parameters())
    theirs = read_projector(path)
    shapes = ({n: tuple(t.shape) for n, t in both.items()} for both in (theirs, mine))
    given, wanted = shapes
    if given != wanted:
        raise InputError(f"{str(path)!r} does not fit: it holds {given}, the model's projector is {wanted}.")
    with torch.no_grad():
        for name, weight in theirs.items():
            mine[name].copy_(weight)


def write_projector(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a model's projector as LLaVA does; a file called `non_lora_trainables.bin` gets the names that go with LoRA."""
    back = {v: k for k, v in _LINEARS.items()}
    front = "base_model.model.model" if Path(path).name == NON_LORA_BIN else "model"
    state = {}
    for name, weight in base_of(model).model.multi_modal_projector.named_parameters():
        linear, kind = name.split(".")
        state[f"{front}.mm_projector.{back[linear]}.{kind}"] = weight.detach().cpu().clone()
    torch.save(state, path)
