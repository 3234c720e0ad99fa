"""Deeper features added to image tokens between a decoder's layers, by numbers of places.

Hugging Face's code picks the places by a mask, twice a layer: a GPU waits each time for how many there are, and a price,
which is counted without values, cannot be told at all.
Axes: B rows, T tokens, R image tokens of the batch, H the decoder's width.
"""

from typing import Any

import torch


def place_by_number(decoder: Any) -> None:
    """Have a decoder take index vectors (rows, tokens) as `visual_pos_masks`, once; a mask is taken as before."""
    if "_deepstack_process" not in vars(decoder):
        decoder._deepstack_process = _added


def _added(
    hidden_BTH: torch.Tensor, places: torch.Tensor | tuple[torch.Tensor, ...], features_RH: torch.Tensor
) -> torch.Tensor:
    """Return what `Qwen3VLTextModel._deepstack_process` does; no place is there twice."""
    numbers = torch.nonzero(places, as_tuple=True) if isinstance(places, torch.Tensor) else places
    return hidden_BTH.index_put(numbers, features_RH.to(hidden_BTH.dtype), accumulate=True)
