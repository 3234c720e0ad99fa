"""Files of tensors by name: their headers, their contents, and an account of every name and shape against a model's.

On the meta device nothing but headers is read: the driver checks a checkpoint by the same code that loads it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..store.errors import InputError
from .components import canonical, component_of
from .folders import check_head
from .moment_files import torch_file

Shapes = Mapping[str, Iterable[int]]
# buffers that older versions saved and newer ones compute: their absence from the model is no fault
LEGAL_EXTRAS = ("position_ids", "rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached", "masked_bias")


def header(file: Path) -> dict[str, list[int]]:
    """Return the shapes in a safetensors file by name, without reading its tensors.

    Raises:
        InputError: it is damaged, cut short, no safetensors at all, or holds nothing.
    """
    check_head(file)
    try:
        with safe_open(str(file), "pt") as source:
            shapes = {name: list(source.get_slice(name).get_shape()) for name in source.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{str(file)!r} cannot be loaded, it is damaged or was cut short ({error}). Fetch or copy it again."
        ) from error
    except RuntimeError as error:  # too large for the memory that may be mapped here
        raise InputError(f"{str(file)!r} cannot be opened: {error}.") from error
    if not shapes:
        raise InputError(f"{str(file)!r} is empty: it holds no tensor.")
    return shapes


def refuse_whole_numbers(where: str, names: Iterable[str]) -> None:
    """Refuse weights that are stored as whole numbers: without their scale the fractions are lost.

    Raises:
        InputError: `names`, those of such tensors, holds more than buffers.
    """
    whole = [n for n in names if not n.endswith(LEGAL_EXTRAS)]
    if whole:
        raise InputError(
            f"{where} holds whole numbers where weights belong, and no scale for them: {_listed(whole)}. Take the file "
            "from before it was cast."
        )


def whole_numbers(file: Path) -> list[str]:
    """Return the names of a safetensors file's tensors that are integers or truth values, by its header."""
    with safe_open(str(file), "pt") as source:
        return [n for n in source.keys() if not source.get_slice(n).get_dtype().startswith(("F", "BF"))]  # noqa: SIM118


def refuse_unsound(where: str, named: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Refuse tensors with values that are not finite; nothing made with them would be.

    Raises:
        InputError: names them.
    """
    bad = [n for n, t in named if t.is_floating_point() and not t.is_meta and not bool(t.isfinite().all())]
    if bad:
        raise InputError(f"{where} holds NaN or infinite values in {_listed(bad)}.")


def read_tensors(file: Path, meta: bool = False) -> dict[str, torch.Tensor]:
    """Return a file's tensors by name, on the CPU; `meta`: their shapes alone. `.safetensors`, or torch's own `.bin`.

    Raises:
        InputError: damaged, empty, or it holds something else than tensors.
    """
    if file.suffix == ".safetensors":
        shapes = header(file)
        if meta:
            return {n: torch.empty(s, device="meta") for n, s in shapes.items()}
        with safe_open(str(file), "pt") as source:
            return {n: source.get_tensor(n) for n in shapes}
    state = torch_file(file)
    others = [n for n, t in state.items() if not isinstance(t, torch.Tensor)]
    if others or not state:
        raise InputError(f"{str(file)!r} holds {f'{others[:5]}, which are no tensors' if others else 'no tensor'}.")
    refuse_whole_numbers(repr(str(file)), [n for n, t in state.items() if not t.is_floating_point()])
    return {n: t.to("meta") for n, t in state.items()} if meta else state


def shapes_of(named: Iterable[tuple[str, torch.Tensor]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of named tensors."""
    return {n: tuple(t.shape) for n, t in named}


def refuse_misfits(where: str, stored: Shapes, wanted: Shapes, optional: Shapes | None = None) -> None:
    """Refuse tensors that fit nothing, are missing, or have another shape; all are named.

    `optional`: what may be there besides.

    Raises:
        InputError: something does not fit.
    """
    legal = dict(optional or {}) | dict(wanted)
    extra = [n for n in stored if n not in legal and not n.endswith(LEGAL_EXTRAS)]
    shapes = {n: (list(stored[n]), list(legal[n])) for n in stored if n in legal}
    other = [f"{n} {mine} for {theirs}" for n, (mine, theirs) in shapes.items() if mine != theirs]
    missing = [n for n in wanted if n not in stored]
    faults = {"Tensors that fit nothing": extra, "Missing tensors": missing, "Of another shape": other}
    said = [f"{what}: {_listed(names)}" for what, names in faults.items() if names]
    if said:
        raise InputError(f"{where} does not fit its model. {'. '.join(said)}.")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"


def whole_components(model: Any, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all parameters of those components of a model that some of `names` belong to.

    A training trains whole components: a file that holds half of one was cut, or is another model's.
    """
    mine = shapes_of((canonical(n), p) for n, p in model.named_parameters())
    touched = {component_of(n) for n in names if n in mine}
    return {n: s for n, s in mine.items() if component_of(n) in touched}


def put_tensors(model: Any, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Copy tensors into a model's parameters of the same canonical names, cast to their type.

    Raises:
        InputError: as `refuse_misfits`: every tensor fits, and none of the components that they belong to is missing.
    """
    if not tensors:
        raise InputError(f"{where} is empty: it holds no tensor.")
    refuse_misfits(where, shapes_of(tensors.items()), whole_components(model, tensors))
    mine = {canonical(n): p for n, p in model.named_parameters()}
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name in mine and not mine[name].is_meta:
                mine[name].copy_(tensor)
