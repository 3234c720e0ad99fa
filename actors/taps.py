"""The tap of each feature kind, for an actor that computes it."""

from typing import Any

import torch

from ..models.moments import load_moments, state_digest
from ..models.parts import canonical, parameters_of, part_of, pick_linears
from ..models.projections.targets import Targets
from ..models.specs import PARTS
from ..models.taps.attention import AttentionTap
from ..models.taps.forward import EmbeddingTap, LossTap
from ..models.taps.gradients import GradientTap
from ..models.taps.modes import Transform, make_transform
from ..store.errors import InputError
from .config import CheckpointRef, FeatureConfig, FeatureSpec
from .means import means_path, read_means

NEED_MOMENTS = ("less_adam", "adam")


def make_tap(model: Any, spec: FeatureSpec, number: int) -> Any:
    """Return the tap of a feature kind at the spec's checkpoint `number`: batch → vectors [B, D].

    A new kind is one entry here and in `FeatureConfig`.
    """
    config = spec.config
    if config.kind == "trajectory":
        return AttentionTap(model, config.top_k, config.attention)
    if config.kind == "loss":
        return LossTap(model)
    if config.kind == "embedding":
        return EmbeddingTap(model, config.pooling)
    projection: Any = config.projection
    if config.kind == "influence":
        path = means_path(spec.out, spec.checkpoints[number].step)
        projection = Targets(read_means(path, spec.device, next(model.parameters()).dtype))
    return GradientTap(model, config.which, projection, make_mode(model, config, spec.checkpoints[number]))


def make_mode(model: Any, config: FeatureConfig, checkpoint: CheckpointRef) -> Transform:
    """Return the maths mode at a checkpoint, with Adam's moments from its optimizer where it needs them.

    Raises:
        InputError: there is no optimizer state, or it does not fit the tapped parameters.
    """
    if config.mode not in NEED_MOMENTS:
        return make_transform(config.mode, None)
    shapes = {n: p.shape for n, p in parameters_of(pick_linears(model, config.which)).items()}
    problems, known = [], {canonical(n): p.shape for n, p in model.named_parameters()}
    for order in _trained(model):
        try:
            moments = load_moments(checkpoint.optimizer or checkpoint.path, shapes, order, known=known)
        except InputError as error:
            problems.append(error)
        else:
            return make_transform(config.mode, moments)
    raise problems[0]


def optimizer_digest(config: FeatureConfig, checkpoint: CheckpointRef) -> str:
    """Return what names a checkpoint's optimizer state in a feature key; empty where the mode needs none."""
    return state_digest(checkpoint.optimizer or checkpoint.path) if config.mode in NEED_MOMENTS else ""


def _trained(model: Any) -> list[dict[str, torch.Size]]:
    """Guess which parameters a file keyed by index counts: name → shape, the likeliest set first."""
    parts = ("lora",), ("lora", "projector"), ("projector",), ("projector", "language_model"), PARTS
    if any(part_of(n) == "mores" for n, _ in model.named_parameters()):
        parts = ("projector", "mores"), ("mores",)
    shapes = {canonical(n): (part_of(n), p.shape) for n, p in model.named_parameters()}
    guesses = ({n: shape for n, (part, shape) in shapes.items() if part in chosen} for chosen in parts)
    has_lora = any(part == "lora" for part, _ in shapes.values())
    return [g for chosen, g in zip(parts, guesses, strict=True) if g and ("lora" in chosen) == has_lora]
