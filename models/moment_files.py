"""Reading optimizer files without running what they carry, and telling which parameter each entry belongs to.

Torch numbers parameters over the optimizer's param groups, in order; who made the groups decides what number i is
(spec LESS §1.2). FSDP's full states and ours are keyed by name.
"""

import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..store.errors import InputError
from ..store.reading import wrong
from .components import component_of
from .folders import check_head

KINDS = ("exp_avg", "exp_avg_sq")
# all that DeepSpeed's own files hold beyond tensors and plain values
_DEEPSPEED = ("ZeroStageEnum", "LossScaler", "DynamicLossScaler", "fragment_address")
_NO_DECAY = re.compile(r"bias|norm")


@dataclass(frozen=True)
class StoredState:
    """An optimizer file: the names in it, `entry(name)` → `exp_avg`, `exp_avg_sq` and `step`, and its hyperparameters.

    `sizes`: shapes by name, where they are known without reading.
    """

    names: Sequence[str]
    entry: Callable[[str], Mapping[str, Any]]
    groups: Sequence[Mapping[str, Any]]
    sizes: Mapping[str, Sequence[int]] = field(default_factory=dict)


def refuse_classes(file: Path) -> list[str]:
    """Return the classes whose objects a file of `torch.save` carries, all of DeepSpeed's checkpoints, without loading it.

    Raises:
        InputError: it is no such file, or carries others: loading would run what they say.
    """
    check_head(file)
    if not zipfile.is_zipfile(file):
        raise InputError(f"{str(file)!r} is no file of torch.save (or a torch before 1.6 wrote it). Save it again.")
    try:
        classes = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    except Exception as error:  # a pickle of another kind than torch's
        raise InputError(f"{str(file)!r} cannot be read: {type(error).__name__}: {wrong(error)}.") from error
    foreign = [c for c in classes if not (c.startswith("deepspeed.") and c.rsplit(".", 1)[-1] in _DEEPSPEED)]
    if foreign:
        raise InputError(
            f"{str(file)!r} carries objects of {foreign}, which loading would run. Save its tensors and plain values alone."
        )
    return classes


def torch_file(file: Path) -> dict[str, Any]:
    """Map a file of `torch.save` into memory; of classes, only those of DeepSpeed's checkpoints are let in.

    Raises:
        InputError: it is no such file, or carries other classes.
    """
    classes = refuse_classes(file)
    with torch.serialization.safe_globals(_deepspeed_classes()) if classes else nullcontext():
        try:
            values = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # of zip files, pickles and storages
            raise InputError(f"{str(file)!r} cannot be read: {type(error).__name__}: {wrong(error)}.") from error
    if not isinstance(values, dict):
        raise InputError(f"{str(file)!r} holds a {type(values).__name__}, not a mapping of states or tensors.")
    return values


def _deepspeed_classes() -> list[Any]:
    try:
        from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
        from deepspeed.runtime.zero.config import ZeroStageEnum
        from deepspeed.utils.tensor_fragment import fragment_address
    except ImportError as error:
        raise InputError(f"a DeepSpeed checkpoint can be read only where DeepSpeed is installed: {error}.") from error
    return [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]


def read_state(
    values: Mapping[str, Any],
    shapes: Mapping[str, torch.Size],
    order: Iterable[str] | Mapping[str, torch.Size] | None,
    where: str,
) -> StoredState:
    """Return an optimizer's `state_dict`, keyed by index (torch, Hugging Face, LLaVA) or by name (FSDP).

    Raises:
        InputError: it is no optimizer's state, or the indices cannot be told apart.
    """
    state, groups = values.get("state"), values.get("param_groups")
    if not isinstance(state, Mapping) or not isinstance(groups, list) or not state:
        raise InputError(f"{where} holds no optimizer state: `state` and `param_groups` of an Adam are needed.")
    if all(isinstance(k, str) for k in state):
        return StoredState(list(state), state.__getitem__, groups)
    own_names = [n for g in groups for n in g.get("param_names", ())]
    indices = [i for g in groups for i in g["params"]]
    if len(own_names) == len(indices):  # newer torch writes the names down, if the optimizer was told them
        index = dict(zip(own_names, indices, strict=True))
    else:
        index = _resolve(state, groups, (shapes, order), where)
    return StoredState([n for n, i in index.items() if i in state], lambda n: state[index[n]], groups)


def _layouts(order: Sequence[str]) -> dict[str, list[list[str]]]:
    """Return the known ways of grouping parameters, each its groups in order."""

    def pick(decays: bool | None, projector: bool | None, without: re.Pattern[str] = _NO_DECAY) -> list[str]:
        return [
            n
            for n in order
            if decays in (None, not without.search(n)) and projector in (None, component_of(n) == "projector")
        ]

    flat = re.compile(r"bias|norm|class_embedding")  # ours goes by the number of axes
    return {
        "one group": [list(order)],
        "Hugging Face's two groups": [pick(True, None), pick(False, None)],
        "LLaVA's four groups": [pick(d, p) for p in (False, True) for d in (True, False)],
        "vinnow's groups": [g for d in (True, False) for p in (True, False) if (g := pick(d, p, flat))],
    }


def _resolve(state: Mapping[int, Any], groups: Sequence[Any], known: tuple[Any, Any], where: str) -> dict[str, int]:
    """Return the index of each name, by the one layout in which group sizes and shapes agree."""
    shapes, order = known
    names = list(shapes if order is None else order)
    sized = {**order, **shapes} if isinstance(order, Mapping) else dict(shapes)
    sizes = [len(g["params"]) for g in groups if g["params"]]
    if sum(sizes) != len(names):
        raise InputError(
            f"{where} holds {sum(sizes)} parameters in groups of {sizes}, but {len(names)} trained ones are known "
            f"({names[0]}, …). Give `order`: the names of all that were trained, in the model's order."
        )
    fits: dict[str, dict[str, int]] = {}
    wrong, layouts = "", _layouts(names)
    for title, layout in layouts.items():
        if [len(g) for g in layout if g] != sizes:
            continue
        index = dict(zip([n for g in layout for n in g], [i for g in groups for i in g["params"]], strict=True))
        differs = _first_difference(index, state, sized)
        if differs is None:
            fits[title] = index
        elif not wrong or len(layout) == len(groups):  # the likeliest layout's difference says most
            wrong = f"by {title}, {differs}"
    if not fits:
        wrong = wrong or f"no known grouping has sizes {sizes}: " + "; ".join(
            f"{title} would be {[len(g) for g in layout if g]}" for title, layout in layouts.items()
        )
        raise InputError(f"{where} does not fit the trained parameters: {wrong}. Is it this checkpoint's, is `order`?")
    return _only(fits, layouts, (len(groups), list(shapes)), where)


def _first_difference(
    index: Mapping[str, int], state: Mapping[int, Any], sized: Mapping[str, torch.Size]
) -> str | None:
    for name, i in index.items():
        moment = state.get(i, {}).get(KINDS[0])
        if moment is not None and name in sized and moment.shape != sized[name]:
            return f"{name} has shape {list(sized[name])}, entry {i} has {list(moment.shape)}"
    return None


def _only(fits: dict[str, dict[str, int]], layouts: dict[str, Any], wanted: tuple[int, list[str]], where: str) -> Any:
    """Return the one assignment, where several fit: they may well agree on what is asked for."""
    count, names = wanted
    same = [t for t in fits if len(layouts[t]) == count] or list(fits)
    by_assignment = {tuple(fits[t].get(n) for n in names): t for t in same}
    if len(by_assignment) > 1:
        raise InputError(
            f"{where} is ambiguous: {' and '.join(by_assignment.values())} fit all shapes and name the parameters "
            "differently. Save the moments by name (vinnow's training: save_moments: true)."
        )
    return fits[same[0]]
