"""Encoded rows → one batch, text-only and image rows together. Axes: B rows, T tokens, I images."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from ..store.errors import InputError
from .encode import IGNORE, Encoded


def collate(
    samples: Sequence[Encoded],
    pixels: Sequence[np.ndarray[Any, Any] | None],
    pad_id: int,
    side: Literal["right", "left"] = "right",
) -> dict[str, Any]:
    """Pad and stack: right for training and features, left for generation.

    Returns `input_ids`, `attention_mask`, `labels` i64 [B, T]; `pixel_values` f32 [I, 3, H, W] (normalised,
    from `Encoder.pixels`) or None when no row brings a picture; `image_owner` i64 [I], the row of each
    picture; `sample_id` u64 [B], `n_tokens` i32 [B]. Pads have attention 0 and label -100.

    Callers that normalise on the device give None for every picture and set `pixel_values` and `image_owner`
    later.

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

    shown = [(i, p) for i, (_, p) in enumerate(zip(samples, pixels, strict=True)) if p is not None]
    shapes = {p.shape for _, p in shown}
    if len(shapes) > 1:
        raise InputError(f"pictures of one batch have different shapes: {sorted(shapes)}.")
    if any(p.dtype == np.uint8 for _, p in shown):
        raise InputError("these pictures are bytes, not normalised: use `Encoder.pixels`, or normalise later.")
    stacked = torch.from_numpy(np.stack([p for _, p in shown]).astype(np.float32)) if shown else None
    return {
        "input_ids": padded([s.input_ids for s in samples], pad_id),
        "attention_mask": padded([np.ones(len(s.input_ids), np.int64) for s in samples], 0),
        "labels": padded([s.labels for s in samples], IGNORE),
        "pixel_values": stacked,
        "image_owner": torch.tensor([i for i, _ in shown], dtype=torch.long),
        "sample_id": np.array([s.sample_id for s in samples], np.uint64),
        "n_tokens": np.array([len(s.input_ids) for s in samples], np.int32),
    }
