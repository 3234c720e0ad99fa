"""One batch of text-only and image rows, padded on either side."""

import numpy as np
import pytest
import torch
from vinnow.pool.collate import collate
from vinnow.pool.encode import IGNORE, Encoded
from vinnow.store.errors import InputError


def row(sample_id: int, length: int, *images: str) -> Encoded:
    ids = np.arange(1, length + 1, dtype=np.int64) + 100 * (sample_id % 7)
    labels = np.where(np.arange(length) >= length // 2, ids, IGNORE)
    return Encoded(sample_id, ids, labels, images)


def pixels(value: float) -> np.ndarray:
    return np.full((3, 4, 4), value, np.float32)


@pytest.mark.parametrize("side", ["right", "left"])
def test_mixed_rows(side):
    rows = [row(1, 3), row(2, 5, "a.png"), row(3, 1), row(2**63 + 5, 4, "b.png")]
    batch = collate(rows, [[], [pixels(0.5)], [], [pixels(-1.0)]], pad_id=9, side=side)
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape == (4, 5)
    for i, r in enumerate(rows):
        n = len(r.input_ids)
        place = slice(0, n) if side == "right" else slice(5 - n, 5)
        pads = torch.ones(5, dtype=torch.bool)
        pads[place] = False
        assert batch["input_ids"][i, place].tolist() == r.input_ids.tolist()
        assert batch["labels"][i, place].tolist() == r.labels.tolist()
        assert (batch["input_ids"][i, pads] == 9).all()
        assert (batch["labels"][i, pads] == IGNORE).all()
        assert (batch["attention_mask"][i] == (~pads).long()).all()
    assert batch["image_owner"].tolist() == [1, 3]
    assert batch["pixel_values"].dtype == torch.float32
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [0.5, -1.0]
    assert batch["sample_id"].tolist() == [1, 2, 3, 2**63 + 5]
    assert batch["n_tokens"].tolist() == [3, 5, 1, 4]


def test_several_pictures_a_row_stand_in_order():
    rows = [row(1, 3, "a", "b"), row(2, 2), row(3, 4, "c")]
    batch = collate(rows, [[pixels(1), pixels(2)], [], [pixels(3)]], pad_id=0)
    assert batch["image_owner"].tolist() == [0, 0, 2]
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [1, 2, 3]


def test_a_pad_id_in_the_text_is_attended():
    batch = collate([row(0, 3), row(0, 2)], [[], []], pad_id=2)
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_text_only_has_no_pixels():
    batch = collate([row(1, 3), row(2, 2)], [[], []], pad_id=0)
    assert batch["pixel_values"] is None
    assert batch["image_owner"].tolist() == []
    assert batch["image_owner"].dtype == torch.long


@pytest.mark.parametrize(
    ("rows", "shown", "message"),
    [
        ([], [], "at least one row"),
        ([row(1, 2, "a"), row(2, 2, "b")], [[pixels(0)], [np.zeros((3, 8, 8), np.float32)]], "different shapes"),
        ([row(1, 2, "a")], [[np.zeros((3, 4, 4), np.uint8)]], "not normalised"),
    ],
)
def test_what_cannot_be_a_batch(rows, shown, message):
    with pytest.raises(InputError, match=message):
        collate(rows, shown, pad_id=0)


def test_rows_and_pictures_of_different_number_are_a_bug():
    with pytest.raises(ValueError, match="zip"):
        collate([row(1, 2)], [], pad_id=0)
