"""Adam's moments out of DeepSpeed checkpoint folders, as `engine.save_checkpoint` writes them (ZeRO 1, 2, 3).

ZeRO 1 and 2 flatten a param group, pad it, and cut the vector into one piece a rank, across parameters. ZeRO 3 cuts each
parameter into one piece of ⌈numel / ranks⌉ a rank and lays a rank's pieces one after the other. Names and shapes stand in
the model file beside. Source: `deepspeed/utils/zero_to_fp32.py` of DeepSpeed 0.19, which does so for the weights.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..store.errors import InputError
from .moment_files import KINDS, StoredState, torch_file

SHARDS, MODELS = "*_optim_states.pt", "*mp_rank_00_model_states.pt"
_RANK = re.compile(r"zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt$")
_ALIGNMENT = 2  # elements a rank that DeepSpeed aligns a flat group to


def zero_files(folder: Path) -> list[Path]:
    """Return the ranks' optimizer files in rank order; empty where DeepSpeed ran without ZeRO.

    Raises:
        InputError: files of model parallelism, or of some ranks only.
    """
    by_rank = {}
    for file in folder.glob(SHARDS):
        match = _RANK.search(file.name)
        if match is None or int(match[2]):
            raise InputError(
                f"{str(file)!r}: tensor- or pipeline-parallel states are not read; data-parallel ones are."
            )
        by_rank[int(match[1])] = file
    if sorted(by_rank) != list(range(len(by_rank))):
        raise InputError(f"{str(folder)!r} holds the optimizer of ranks {sorted(by_rank)} only: copy the others too.")
    return [by_rank[rank] for rank in sorted(by_rank)]


def model_file(folder: Path) -> Path:
    """Return the first model file of a DeepSpeed checkpoint, which names the parameters.

    Raises:
        InputError: there is none.
    """
    files = sorted(folder.glob(MODELS))
    if not files:
        raise InputError(
            f"{str(folder)!r} has no *_model_states.pt, which names the optimizer's parameters. Copy it too."
        )
    return files[0]


def read_zero(folder: Path) -> StoredState:
    """Return a ZeRO checkpoint's state by the module's parameter names; parameters are put together when asked for.

    Raises:
        InputError: ranks are missing, or sizes do not add up.
    """
    files = zero_files(folder)
    ranks = [torch_file(f)["optimizer_state_dict"] for f in files]
    count = ranks[0]["partition_count"]
    count = max(count) if isinstance(count, Sequence) else count
    if count != len(ranks):
        raise InputError(f"{str(folder)!r} was written by {count} ranks, but has the files of {len(ranks)}.")
    shapes = torch_file(model_file(folder)).get("param_shapes")
    if not shapes:
        raise InputError(f"{str(folder)!r}: its model file does not name the optimizer's parameters (param_shapes).")
    split = "fp32_flat_groups" in ranks[0]  # ZeRO 3
    bases = [r["optimizer_state_dict" if split else "base_optimizer_state"] for r in ranks]
    if not all(isinstance(b, Mapping) for b in bases):
        raise InputError(f"{str(folder)!r} is an elastic checkpoint: save it with elastic_checkpoint false.")
    paddings = ranks[0].get("param_alignment_paddings")
    places: dict[str, tuple[int, int, torch.Size]] = {}
    for group, named in enumerate(shapes):
        pieces = [b["state"].get(group, {}).get(KINDS[0]) for b in bases]
        if any(p is None for p in pieces):  # never stepped: its parameters have no moments
            continue
        pads = [0] * len(named) if split or paddings is None else paddings[group]
        _check_group(list(named.values()), pads, pieces, (split, f"{str(folder)!r}, group {group}"))
        offset = 0
        for (name, shape), pad in zip(named.items(), pads, strict=True):
            places[name] = (group, offset, torch.Size(shape))
            offset += math.ceil(shape.numel() / len(ranks)) if split else shape.numel() + pad

    def entry(name: str) -> dict[str, Any]:
        group, offset, shape = places[name]
        states = [b["state"][group] for b in bases]
        put = _join_split if split else _join_flat
        step = states[0].get("step", bases[0]["param_groups"][0].get("step"))
        # a kind that is not there is for the caller to refuse
        return {k: put([s[k] for s in states], offset, shape) for k in KINDS if k in states[0]} | {"step": step}

    return StoredState(list(places), entry, bases[0]["param_groups"])


def _check_group(shapes: list[torch.Size], pads: list[int], pieces: list[torch.Tensor], what: tuple[bool, str]) -> None:
    split, where = what
    ranks, there = len(pieces), sum(p.numel() for p in pieces)
    if split:
        needed, slack = ranks * sum(math.ceil(s.numel() / ranks) for s in shapes), 1
    else:
        # an aligned group may or may not still have its padding, so sizes agree up to it
        needed, slack = sum(s.numel() for s in shapes) + sum(pads), _ALIGNMENT * ranks
    if math.ceil(needed / slack) != math.ceil(there / slack):
        raise InputError(f"{where}: its parameters have {needed} elements, its moments {there}. Is the folder whole?")


def _join_flat(pieces: list[torch.Tensor], offset: int, shape: torch.Size) -> torch.Tensor:
    """Return elements `at` … of the ranks' pieces laid one after the other; only the ranks that hold some are read."""
    taken, end = [], offset + shape.numel()
    for piece in pieces:
        size = piece.numel()
        if offset < size and end > 0:
            taken.append(piece[max(0, offset) : min(size, end)])
        offset, end = offset - size, end - size
    return torch.cat(taken).view(shape)


def _join_split(pieces: list[torch.Tensor], offset: int, shape: torch.Size) -> torch.Tensor:
    """Return a parameter of which each rank holds the same number of elements, the last ones padded."""
    size = math.ceil(shape.numel() / len(pieces))
    return torch.cat([p[offset : offset + size] for p in pieces])[: shape.numel()].view(shape)
