"""Encoded rows → one batch, text-only and image rows together. Axes: B rows, T tokens, I pictures."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from ..store.arrays import Array
from ..store.errors import InputError
from .encode import IGNORE, Encoded


def collate(samples: Sequence[Encoded], pad_id: int, side: Literal["right", "left"] = "right") -> dict[str, Any]:
    """Pad and stack: right for training and features, left for generation.

    Returns `input_ids`, `attention_mask`, `labels` i64 [B, T]; `media`: name → all pictures' values in the rows' order, one
    behind the other along the first axis (empty when no row brings a picture; `Encoder.finish` makes them what the model
    takes); `media_counts`: name → i64 [I], how much of that axis is each picture's; `image_owner` i64 [I], the row of each
    picture; `sample_id` u64 [B], `n_tokens` i32 [B]. Pads have attention 0 and label -100.

    Raises:
        InputError: no rows, or pictures that do not go together.
    """
    if not samples:
        raise InputError("a batch needs at least one row.")
    longest = max(len(s.input_ids) for s in samples)

    def padded(arrays: list[Array], fill: int) -> torch.Tensor:
        out_BT = np.full((len(arrays), longest), fill, np.int64)
        for row, array in zip(out_BT, arrays, strict=True):
            place = slice(0, len(array)) if side == "right" else slice(longest - len(array), longest)
            row[place] = array
        return torch.from_numpy(out_BT)

    return {
        "input_ids": padded([s.input_ids for s in samples], pad_id),
        "attention_mask": padded([np.ones(len(s.input_ids), np.int64) for s in samples], 0),
        "labels": padded([s.labels for s in samples], IGNORE),
        "sample_id": np.array([s.sample_id for s in samples], np.uint64),
        "n_tokens": np.array([len(s.input_ids) for s in samples], np.int32),
    } | stack(samples)


def stack(samples: Sequence[Encoded]) -> dict[str, Any]:
    """Return all rows' pictures in order: `media`, `media_counts` and `image_owner` of `collate`.

    Raises:
        InputError: pictures of different shapes, or prepared for different models.
    """
    shown = [one for sample in samples for one in sample.media]
    names = {tuple(one) for one in shown}
    if len(names) > 1:
        raise InputError(f"pictures of one batch are prepared in different ways: {sorted(names)}.")
    media, counts = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for name in shown[0] if shown else ():
        shapes = {one[name].shape[1:] for one in shown}
        if len(shapes) > 1:
            raise InputError(f"pictures of one batch have different shapes: {sorted(shapes)}.")
        media[name] = torch.from_numpy(np.concatenate([one[name] for one in shown]))
        counts[name] = torch.tensor([len(one[name]) for one in shown], dtype=torch.long)
    owner = torch.tensor([i for i, sample in enumerate(samples) for _ in sample.media], dtype=torch.long)
    return {"media": media, "media_counts": counts, "image_owner": owner}
