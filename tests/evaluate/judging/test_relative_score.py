"""The relative score, worked by hand, and its interval against a loop over pictures."""

import numpy as np
import pytest
from vinnow.evaluate.judging.relative import relative_scores
from vinnow.store.errors import InputError


def scores_of(model, reference, category, picture, seed=0):
    return relative_scores(
        np.array(model, float), np.array(reference, float), np.array(category, object), np.array(picture), seed
    )


def test_worked_by_hand():
    told = scores_of([4, 6, 9, 3], [8, 8, 9, 10], ["conv", "conv", "detail", "complex"], ["a", "b", "a", "b"])
    assert list(told) == ["complex", "conv", "detail", "all"]
    assert told["conv"].relative.estimate == pytest.approx(62.5)  # 5 of 8
    assert told["detail"].relative.estimate == pytest.approx(100)
    assert told["complex"].relative.estimate == pytest.approx(30)
    # pooled: 22 of 35; the mean of categories would be 64.2, the mean of questions' ratios 63.75
    assert told["all"].relative.estimate == pytest.approx(100 * 22 / 35)
    assert (told["all"].model, told["all"].reference, told["all"].questions) == (5.5, 8.75, 4)
    # one picture says nothing of others
    assert told["detail"].plain()["low"] is None
    assert told["conv"].plain()["low"] is not None


def test_the_interval_draws_pictures():
    rng = np.random.default_rng(3)
    picture_N = np.repeat(np.arange(12), 5)
    # questions of a picture are alike: as if they were independent, the interval would be too narrow
    model_N = np.clip(rng.normal(6, 2, 12)[picture_N] + rng.normal(0, 0.3, 60), 1, 10)
    reference_N = np.clip(rng.normal(8, 0.5, 60), 1, 10)
    together = scores_of(model_N, reference_N, ["conv"] * 60, picture_N)["all"].relative
    alone = scores_of(model_N, reference_N, ["conv"] * 60, np.arange(60))["all"].relative
    draws = []
    for _ in range(3000):
        rows = np.concatenate([np.flatnonzero(picture_N == p) for p in rng.integers(0, 12, 12)])
        draws.append(100 * model_N[rows].mean() / reference_N[rows].mean())
    low, high = np.quantile(draws, [0.025, 0.975])
    assert (together.low, together.high) == (pytest.approx(low, abs=1.5), pytest.approx(high, abs=1.5))
    assert alone.high - alone.low < 0.7 * (together.high - together.low)


def test_nothing_to_be_relative_to():
    with pytest.raises(InputError, match="relative to"):
        scores_of([-1], [-1], ["conv"], ["a"])
    with pytest.raises(InputError, match="called 'all'"):
        scores_of([1], [1], ["all"], ["a"])
