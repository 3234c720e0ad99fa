"""LLaVA's own files in and out: `mm_projector.bin` (stage 1) and `non_lora_trainables.bin` (LoRA), which are renames.

Both hold the projector by torch's pickle format, read with `weights_only=True`: `model.mm_projector.{0,2}.…`, behind
`base_model.model.` after LoRA, is `model.multi_modal_projector.linear_{1,2}.…` here (spec: LLaVA §6, §9); `mlp3x_gelu` goes
on with 4, and `linear` has no number (§3).
"""

import io
import os
import re
from pathlib import Path
from typing import Any

import torch

from ....store.errors import InputError
from ....store.files import write_bytes
from ...components import base_of
from ...folders import NON_LORA_BIN
from ...moment_files import torch_file
from ...tensors import refuse_misfits, refuse_unsound, refuse_whole_numbers, shapes_of
from .connectors import connector_of

PROJECTOR = "mm_projector.bin"
_KEY = re.compile(r"(?:.*\.)?mm_projector\.(?:(\d+)\.)?(weight|bias)")


def read_projector(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Return the projector of one of LLaVA's files, named as in the projector module (`linear_1.weight`, …).

    Raises:
        InputError: no such file, not of tensors alone, or it holds something else than a projector of Linears.
    """
    if not Path(path).is_file():
        raise InputError(f"no file {str(path)!r}: give LLaVA's {PROJECTOR} or {NON_LORA_BIN}.")
    state = torch_file(Path(path))
    tensors: dict[str, torch.Tensor] = {}
    others = []
    for key, value in state.items():
        hit = _KEY.fullmatch(key)
        # a GELU stands between two Linears, so theirs are the even numbers; a single one has none
        place = int(hit[1] or 0) if hit else 1
        if hit is None or place % 2 or not isinstance(value, torch.Tensor):
            others.append(key)
        else:
            tensors[f"linear_{place // 2 + 1}.{hit[2]}"] = value
    if others or not tensors:
        raise InputError(
            f"{str(path)!r} holds {others[:4] or 'nothing'}, which is no part of a projector of Linears "
            "(mm_projector.0, mm_projector.2, …): a checkpoint of other parts."
        )
    return tensors


def put_projector(model: Any, path: str | os.PathLike[str]) -> None:
    """Copy the projector of one of LLaVA's files into a model.

    Raises:
        InputError: as `read_projector`; or sizes, or biases, are not the model's.
    """
    mine = dict(base_of(model).model.multi_modal_projector.named_parameters())
    theirs = read_projector(path)
    where = f"the projector in {str(path)!r}"
    refuse_whole_numbers(where, [n for n, w in theirs.items() if not w.is_floating_point()])
    refuse_unsound(where, theirs.items())
    refuse_misfits(where, shapes_of(theirs.items()), shapes_of(mine.items()))
    with torch.no_grad():
        for name, weight in theirs.items():
            mine[name].copy_(weight)


def write_projector(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a model's projector as LLaVA does; a file called `non_lora_trainables.bin` gets the names that go with LoRA.

    Raises:
        InputError: it is no stack of Linears.
        WriteError: it cannot be written; nothing of it is left.
    """
    base = base_of(model)
    spec = connector_of(base.config)
    if spec.linears() is None:
        raise InputError(f"LLaVA's projector files hold a stack of Linears; this model's connector is {spec.kind}.")
    front = "base_model.model.model" if Path(path).name == NON_LORA_BIN else "model"
    state = {}
    for name, weight in base.model.multi_modal_projector.named_parameters():
        linear, kind = name.split(".")
        place = "" if spec.kind == "linear" else f".{2 * int(linear.removeprefix('linear_')) - 2}"
        state[f"{front}.mm_projector{place}.{kind}"] = weight.detach().cpu().clone()
    data = io.BytesIO()  # torch says nothing of a disk that is full, and leaves half a file
    torch.save(state, data)
    write_bytes(path, data.getvalue())
