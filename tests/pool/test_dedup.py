"""Likeness: the hash survives what copies go through, and near repeats are those of a naive loop."""

import io
import random

import numpy as np
import pytest
from PIL import Image
from vinnow.pool.dedup import difference_hash, near_repeats


def picture(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC)


def far(a: int, b: int) -> int:
    return (a ^ b).bit_count()


@pytest.mark.parametrize("seed", range(4))
def test_a_copy_hashes_alike_and_another_picture_does_not(seed):
    first = picture(seed)
    sink = io.BytesIO()
    first.save(sink, "JPEG", quality=60)
    copies = [Image.open(sink), first.resize((200, 150)), first.convert("L"), first.point(lambda v: int(v * 0.9))]
    assert max(far(difference_hash(first), difference_hash(c)) for c in copies) <= 3
    assert far(difference_hash(first), difference_hash(picture(seed + 100))) > 12
    assert far(difference_hash(first), difference_hash(first.transpose(Image.Transpose.FLIP_LEFT_RIGHT))) > 12


def test_bits_are_neighbours_of_rows():
    ramp = Image.fromarray(np.tile(np.linspace(255, 0, 90).astype(np.uint8), (80, 1)))
    assert difference_hash(ramp) == (1 << 64) - 1
    assert difference_hash(ramp.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == 0


@pytest.mark.parametrize("distance", [0, 1, 3])
def test_near_repeats_are_those_of_a_naive_loop(distance):
    rng = random.Random(distance)
    hashes: list[int] = []
    for _ in range(400):
        value = rng.choice(hashes) if hashes and rng.random() < 0.6 else rng.getrandbits(64)
        for _ in range(rng.randrange(6)):
            value ^= 1 << rng.randrange(64)
        hashes.append(value)
    naive = [next((j for j in range(i) if far(hashes[i], hashes[j]) <= distance), -1) for i in range(len(hashes))]
    assert near_repeats(np.array(hashes, np.uint64), distance).tolist() == naive
    assert 20 < sum(j >= 0 for j in naive) < 350


def test_no_pictures_have_no_repeats():
    assert near_repeats(np.zeros(0, np.uint64)).tolist() == []
