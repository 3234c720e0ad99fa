"""Encoded rows → one batch, text-only and image rows together. Axes: B rows, T tokens, I images."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from ..store.errors import InputError
from .encode import IGNORE, Encoded


def collate(
    samples: Sequence[Encoded],
    pixels: Sequence[Sequence[np.ndarray[Any, Any]]],
    pad_id: int,
    side: Literal["right", "left"] = "right",
) -> dict[str, Any]:
    """Pad and stack: right for training and features, left for generation.

    Returns `input_ids`, `attention_mask`, `labels` i64 [B, T]; `pixel_values` f32 [I, 3, H, W] (normalised,
    from `Encoder.pixels`) or None when no row brings a picture; `image_owner` i64 [I], the row of each
    picture; `sample_id` u64 [B], `n_tokens` i32 [B]. Pads have attention 0 and label -100.

    `pixels`: each row's pictures, in the order of its marks. Callers that normalise on the device give none
    and set `pixel_values` and `image_owner` later, from `stack`.

    Raises:
        InputError: no rows, pictures of different shapes, or pictures as bytes.
    """
    if not samples:
        raise InputError("a batch needs at least one row.")
    longest = max(len(s.input_ids) for s in samples)

    def padded(arrays: list[np.ndarray[Any, Any]], fill: int) -> torch.Tensor:
        out_BT = np.full((len(arrays), longest), fill, np.int64)
        for row, array in zip(out_BT, arrays, strict=True):
            place = slice(0, len(array)) if side == "right" else slice(longest - len(array), longest)
            row[place] = array
        return torch.from_numpy(out_BT)

    stacked, owner = stack([p for _, p in zip(samples, pixels, strict=True)])
    if stacked is not None and stacked.dtype == torch.uint8:
        raise InputError("these pictures are bytes, not normalised: use `Encoder.pixels`, or normalise later.")
    return {
        "input_ids": padded([s.input_ids for s in samples], pad_id),
        "attention_mask": padded([np.ones(len(s.input_ids), np.int64) for s in samples], 0),
        "labels": padded([s.labels for s in samples], IGNORE),
        "pixel_values": None if stacked is None else stacked.float(),
        "image_owner": owner,
        "sample_id": np.array([s.sample_id for s in samples], np.uint64),
        "n_tokens": np.array([len(s.input_ids) for s in samples], np.int32),
    }


def stack(pixels: Sequence[Sequence[np.ndarray[Any, Any]]]) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Return all rows' pictures in order, [I, 3, H, W] (None when there is none), and each one's row, i64 [I].

    Raises:
        InputError: pictures of different shapes.
    """
    shown = [p for row in pixels for p in row]
    shapes = {p.shape for p in shown}
    if len(shapes) > 1:
        raise InputError(f"pictures of one batch have different shapes: {sorted(shapes)}.")
    owner = torch.tensor([i for i, row in enumerate(pixels) for _ in row], dtype=torch.long)
    return torch.from_numpy(np.stack(shown)) if shown else None, owner
