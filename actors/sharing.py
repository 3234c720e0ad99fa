"""Several checkpoints of one training in one actor: equal weights are held once, and a frozen tower runs once a batch."""

from typing import Any

import torch

from ..models.registry import family_of


def share_equal(first: Any, other: Any) -> int:
    """Let `other` use the tensors of `first` wherever the two are equal; returns the bytes that this frees.

    Checkpoints of a LoRA training differ in their adapters alone, those of full fine-tuning at least not in the tower.
    """
    mine = dict(first.named_parameters())
    freed = 0
    for name, parameter in other.named_parameters():
        own = mine.get(name)
        if own is None or own.shape != parameter.shape or own.data_ptr() == parameter.data_ptr():
            continue
        if torch.equal(own, parameter):
            freed += parameter.numel() * parameter.element_size()
            parameter.data = own.data
    return freed


def same_tower(first: Any, other: Any) -> bool:
    """Say whether two models share their whole vision tower (after `share_equal`)."""
    family = family_of(first)
    towers = ([p for m in family.vision(model) for p in m.parameters()] for model in (first, other))
    return all(a.data_ptr() == b.data_ptr() for a, b in zip(*towers, strict=True))
