"""Codes and scales: bounds of what comes back, rows of zeros, rows at the ends of float32, sizes on disk."""

from pathlib import Path

import numpy as np
import pytest
from vinnow.store.errors import InputError, NotFiniteError
from vinnow.store.features import FeatureBatch, FeatureSet, shards_done, write_shard
from vinnow.store.keys import FeatureKey, recipe_text
from vinnow.store.quantise import STORED, decode, encode, error, roundtrip, row_norms

F32 = np.finfo(np.float32)


def rows(n=50, dim=37, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def features(vec_ND, ids=None):
    ids = np.arange(len(vec_ND)) if ids is None else np.asarray(ids)
    return FeatureBatch(ids.astype(np.uint64), np.ones(len(vec_ND), np.int32), vec_ND)


def key(dim):
    return FeatureKey(kind="gradient", dim=dim, pool="p", model="m", checkpoint=3, recipe=recipe_text(seed=0))


def naive_int8(row):
    scale = np.float32(max(abs(float(x)) for x in row) / 127)
    return [round(float(x) / float(scale)) * float(scale) if scale else 0.0 for x in row]  # round: half to even


def naive_bit1(row):
    scale = np.float32(sum(abs(float(x)) for x in row) / len(row))
    return [float(scale) if x >= 0 else -float(scale) for x in row]


@pytest.mark.parametrize(("stored", "naive"), [("int8", naive_int8), ("bit1", naive_bit1)])
@pytest.mark.parametrize("dim", [1, 7, 8, 9, 37])
def test_codes_are_the_naive_ones(stored, naive, dim):
    vec = rows(dim=dim)
    np.testing.assert_allclose(roundtrip(vec, stored), [naive(row) for row in vec], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e-38, 1e-44, 1e38, float(F32.max)])
def test_int8_is_within_half_a_step_at_any_size(size):
    top = np.abs(rows()).max()
    vec = (rows().astype(float) * (size / top)).clip(F32.min, F32.max).astype(np.float32)
    codes, scale_N = encode(vec, "int8")
    back = decode(codes, scale_N, "int8", vec.shape[1])
    assert np.isfinite(back).all()
    assert codes.min() >= -127
    # float32 rounds the product once more
    bound = scale_N.astype(float)[:, None] / 2 * (1 + 1e-4)
    assert (np.abs(back.astype(float) - vec) <= bound).all()
    if size == 1.0:
        assert (np.abs(codes.astype(int)).max(1) == 127).all()


def test_halves_go_to_the_even_code():
    vec = np.array([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]], np.float32)
    assert encode(vec, "int8")[0].tolist() == [[127, 0, 2, 2, 0, -2]]


def test_bit1_keeps_the_signs_and_the_mean_size():
    vec = rows()
    back = roundtrip(vec, "bit1")
    assert np.array_equal(back > 0, vec >= 0)
    np.testing.assert_allclose(np.abs(back), np.abs(vec).mean(1, keepdims=True) * np.ones_like(vec), rtol=1e-6)
    huge = np.full((1, 900), 1e38, np.float32)  # the float32 sum would overflow
    assert np.array_equal(roundtrip(huge, "bit1"), huge)


@pytest.mark.parametrize("stored", STORED)
def test_rows_of_zeros_stay_zeros(stored):
    vec = rows(3)
    vec[1] = 0
    back = roundtrip(vec, stored)
    assert not back[1].any()
    assert back[[0, 2]].any()
    assert roundtrip(vec[:0], stored).shape == (0, 37)


def test_errors_are_relative_and_grow_as_bits_go():
    vec = rows(200, 512)
    vec[7] = 0  # has no relative error
    mean = {s: error(vec, s)["mean"] for s in STORED}
    assert mean["float32"] == 0 < mean["float16"] < mean["int8"] < mean["bit1"]
    assert mean["bit1"] == pytest.approx((1 - 2 / np.pi) ** 0.5, abs=0.01)
    lost = np.linalg.norm(roundtrip(vec, "int8") - vec, axis=1)[vec.any(1)] / np.linalg.norm(vec[vec.any(1)], axis=1)
    assert error(vec, "int8") == pytest.approx({"mean": lost.mean(), "max": lost.max()}, rel=1e-4)
    assert error(np.zeros((2, 4), np.float32), "int8") == {"mean": 0.0, "max": 0.0}


def test_norms_do_not_overflow():
    assert row_norms(np.full((1, 4), 1e30, np.float32)) == pytest.approx([2e30])


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_refused_in_every_storage(tmp_path, stored, bad):
    vec = rows(3)
    vec[1, 5] = bad
    with pytest.raises(NotFiniteError, match=f"1 rows are not finite as {stored}, first sample_id 12"):
        write_shard(tmp_path, key(37), "part-0", features(vec, [11, 12, 13]), stored)
    assert shards_done(tmp_path, key(37)) == set()


def test_an_unknown_storage_names_the_known_ones(tmp_path):
    with pytest.raises(InputError, match="'int4'; did you mean 'int8'"):
        write_shard(tmp_path, key(37), "part-0", features(rows()), "int4")


@pytest.mark.parametrize("stored", STORED)
def test_a_reader_gets_float32_back_in_any_storage(tmp_path, stored):
    vec = rows()
    write_shard(tmp_path, key(37), "part-0", features(vec[:30], np.arange(30)), stored)
    write_shard(tmp_path, key(37), "part-1", features(vec[30:], np.arange(30, 50)), stored)
    write_shard(tmp_path, key(37), "part-2", features(vec[:0]), stored)  # every row was refused
    features_set = FeatureSet(tmp_path, "gradient")
    assert features_set.stored(3) == stored
    assert [len(b.ids) for b in features_set.scan(3)] == [30, 20, 0]
    got = features_set.load(3, np.array([40, 2], np.uint64))
    assert got.vec.dtype == np.float32
    assert np.array_equal(got.vec, roundtrip(vec, stored)[[40, 2]])
    # the norm is that of the row as it was given
    np.testing.assert_allclose(got.norm, np.linalg.norm(vec[[40, 2]], axis=1), rtol=1e-6)
    assert features_set.load(3).vec.shape == (50, 37)


@pytest.mark.parametrize(("stored", "low", "high"), [("float16", 12.5, 16.2), ("int8", 6.5, 8.1), ("bit1", 0.95, 1.1)])
def test_sizes_on_disk(tmp_path, stored, low, high):
    """KB a row of 1000 × 8192: 16, 8 and 1 as written in the type, the first two less by zstd."""
    path = write_shard(tmp_path, key(8192), "part-0", features(rows(1000, 8192)), stored)
    assert low < Path(path).stat().st_size / 1000 / 1024 < high
