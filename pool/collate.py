"""Encoded rows → one batch, text-only and image rows together. Axes: B rows, T tokens, I images."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from .encode import IGNORE, Encoded


def collate(
    samples: Sequence[Encoded],
    pixels: Sequence[np.ndarray[Any, Any] | None],
    pad_id: int,
    side: Literal["right", "left"] = "right",
) -> dict[str, Any]:
    """Pad and stack: right for training and features, left for generation.

    Returns `input_ids`, `attention_mask`, `labels` [B, T]; `pixel_values` f32 [I, 3, H, W] or None when no row has a
    picture; `image_owner` [I], the row of each picture; `sample_id`, `n_tokens` [B].
    """
    longest = max(len(s.input_ids) for s in samples)

    def padded(arrays: list[np.ndarray[Any, Any]], fill: int) -> torch.Tensor:
        out = np.full((len(arrays), longest), fill, np.int64)
        for row, array in zip(out, arrays, strict=True):
            place = slice(0, len(array)) if side == "right" else slice(longest - len(array), longest)
            row[place] = array
        return torch.from_numpy(out)

    shown = [(i, p) for i, p in enumerate(pixels) if p is not None]
    return {
        "input_ids": padded([s.input_ids for s in samples], pad_id),
        "attention_mask": padded([np.ones(len(s.input_ids), np.int64) for s in samples], 0),
        "labels": padded([s.labels for s in samples], IGNORE),
        "pixel_values": torch.from_numpy(np.stack([p for _, p in shown])) if shown else None,
        "image_owner": torch.tensor([i for i, _ in shown], dtype=torch.long),
        "sample_id": np.array([s.sample_id for s in samples], np.uint64),
        "n_tokens": np.array([len(s.input_ids) for s in samples], np.int32),
    }
