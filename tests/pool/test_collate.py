"""One batch of text-only and image rows, padded on either side."""

import numpy as np
import pytest
import torch
from vinnow.models.forward import on_device
from vinnow.models.load import load
from vinnow.pool.collate import collate
from vinnow.pool.encode import IGNORE, Encoded
from vinnow.store.errors import InputError


def row(sample_id: int, length: int, *shown: np.ndarray) -> Encoded:
    ids = np.arange(1, length + 1, dtype=np.int64) + 100 * (sample_id % 7)
    labels = np.where(np.arange(length) >= length // 2, ids, IGNORE)
    media = tuple({"pixel_values": picture[None]} for picture in shown)
    return Encoded(sample_id, ids, labels, tuple("abc"[: len(shown)]), media=media)


def pixels(value: float) -> np.ndarray:
    return np.full((3, 4, 4), value, np.float32)


@pytest.mark.parametrize("side", ["right", "left"])
def test_mixed_rows(side):
    rows = [row(1, 3), row(2, 5, pixels(0.5)), row(3, 1), row(2**63 + 5, 4, pixels(-1.0))]
    batch = collate(rows, pad_id=9, side=side)
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
    assert batch["media"]["pixel_values"].dtype == torch.float32
    assert batch["media"]["pixel_values"][:, 0, 0, 0].tolist() == [0.5, -1.0]
    assert batch["sample_id"].tolist() == [1, 2, 3, 2**63 + 5]
    assert batch["n_tokens"].tolist() == [3, 5, 1, 4]


def test_several_pictures_a_row_stand_in_order():
    rows = [row(1, 3, pixels(1), pixels(2)), row(2, 2), row(3, 4, pixels(3))]
    batch = collate(rows, pad_id=0)
    assert batch["image_owner"].tolist() == [0, 0, 2]
    assert batch["media"]["pixel_values"][:, 0, 0, 0].tolist() == [1, 2, 3]


def test_a_pad_id_in_the_text_is_attended():
    batch = collate([row(0, 3), row(0, 2)], pad_id=2)
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_text_only_has_no_pixels():
    batch = collate([row(1, 3), row(2, 2)], pad_id=0)
    assert not batch["media"]
    assert batch["image_owner"].tolist() == []
    assert batch["image_owner"].dtype == torch.long


def ragged(sample_id: int, *tiles: int) -> Encoded:
    """A row whose pictures are cut in so many tiles each, every tile full of its picture's number."""
    media = tuple(
        {"tiles": np.full((n, 2, 3), 10 * sample_id + i, np.float32), "sizes": np.array([[n, n]])}
        for i, n in enumerate(tiles)
    )
    return Encoded(sample_id, np.arange(3), np.full(3, IGNORE), tuple("abc"[: len(tiles)]), media=media)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 0, 2, 1)])
def test_ragged_pictures_are_one_behind_the_other_and_can_be_cut_by_row(order):
    rows = [ragged(1, 3, 1), ragged(2), ragged(3, 2), ragged(4, 1, 5)]
    rows = [rows[i] for i in order]
    batch = collate(rows, pad_id=0)
    ends = {n: counts.cumsum(0) for n, counts in batch["media_counts"].items()}
    pictures = [one for r in rows for one in r.media]
    assert batch["image_owner"].tolist() == [i for i, r in enumerate(rows) for _ in r.media]
    for name, values in batch["media"].items():
        assert int(ends[name][-1]) == len(values)
        for i, one in enumerate(pictures):
            first = int(ends[name][i] - batch["media_counts"][name][i])
            assert np.array_equal(values[first : int(ends[name][i])].numpy(), one[name])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row"),
        ([row(1, 2, pixels(0)), row(2, 2, np.zeros((3, 8, 8), np.float32))], "different shapes"),
        ([row(1, 2, pixels(0)), ragged(2, 1)], "different ways"),
    ],
)
def test_what_cannot_be_a_batch(rows, message):
    with pytest.raises(InputError, match=message):
        collate(rows, pad_id=0)


def test_bytes_are_not_what_a_model_takes(tiny_model):
    model = load(tiny_model).model
    batch = collate([row(1, 2, np.zeros((3, 4, 4), np.uint8))], pad_id=0)
    with pytest.raises(InputError, match="not normalised"):
        on_device(batch, model)
