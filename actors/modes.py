"""The maths mode of gradients at a checkpoint, with the state of its optimizer where the mode reads it."""

from typing import Any

import torch

from ..models.components import canonical, component_of, parameters_of, pick_linears
from ..models.moments import load_moments, state_digest
from ..models.specs import COMPONENTS, NEED_MOMENTS, Mode
from ..models.taps.modes import Transform, make_transform
from ..store.errors import InputError
from .config import CheckpointRef


def make_mode(model: Any, which: str, mode: Mode, checkpoint: CheckpointRef) -> Transform:
    """Return the maths mode at a checkpoint, with Adam's moments from its optimizer where it needs them.

    Raises:
        InputError: there is no optimizer state, or it does not fit the tapped parameters.
    """
    if mode not in NEED_MOMENTS:
        return make_transform(mode, None)
    shapes = {n: p.shape for n, p in parameters_of(pick_linears(model, which)).items()}
    problems, known = [], {canonical(n): p.shape for n, p in model.named_parameters()}
    for order in _trained(model):
        try:
            moments = load_moments(checkpoint.optimizer or checkpoint.path, shapes, order, known=known)
        except InputError as error:
            problems.append(error)
        else:
            return make_transform(mode, moments)
    raise problems[0]


def optimizer_digest(mode: Mode, checkpoint: CheckpointRef) -> str:
    """Return what names a checkpoint's optimizer state in a feature key; empty where the mode needs none."""
    return state_digest(checkpoint.optimizer or checkpoint.path) if mode in NEED_MOMENTS else ""


def _trained(model: Any) -> list[dict[str, torch.Size]]:
    """Guess which parameters a file keyed by index counts: name → shape, the likeliest set first."""
    parts = ("lora",), ("lora", "projector"), ("projector",), ("projector", "language_model"), COMPONENTS
    if any(component_of(n) == "mores" for n, _ in model.named_parameters()):
        parts = ("projector", "mores"), ("mores",)
    shapes = {canonical(n): (component_of(n), p.shape) for n, p in model.named_parameters()}
    guesses = ({n: shape for n, (part, shape) in shapes.items() if part in chosen} for chosen in parts)
    has_lora = any(part == "lora" for part, _ in shapes.values())
    return [g for chosen, g in zip(parts, guesses, strict=True) if g and ("lora" in chosen) == has_lora]
