"""What an actor asks of any tap, and what one that keeps nothing between batches answers.

Axes: B samples, D width of a vector.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from ...store.arrays import Array


class Tap(ABC):
    """Turns a collated batch into vectors [B, D]; a sample's vector must not depend on its batch-mates."""

    # the modules whose gradients are taken, by name
    modules: Mapping[str, nn.Module] = MappingProxyType({})

    @abstractmethod
    def tensors(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return vectors [B, D] on the model's device, without waiting for it; final after `settle`."""

    def __call__(self, batch: dict[str, Any]) -> Array:
        """Return the same as an array."""
        vec_BD = self.tensors(batch)
        self.settle()
        return vec_BD.cpu().numpy()

    def norms(self) -> torch.Tensor | None:
        """Return the exact norms [B] of what the last batch's vectors stand for; None: those of the vectors."""
        return None

    def restart(self) -> None:  # noqa: B027
        """Begin a part: nothing may depend on the parts before."""

    def settle(self) -> None:  # noqa: B027
        """End a part: make all vectors final, in place; may wait for the device."""

    def facts(self) -> dict[str, Any]:
        """Return what was counted so far."""
        return {}
