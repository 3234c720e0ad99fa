"""Batches under a token budget: every row once, little padded, the same each time."""

import numpy as np
import pytest
from vinnow.pool.batching import count_tokens, token_batches

LENGTHS = np.random.default_rng(0).integers(5, 300, 200).tolist()


def test_token_batches_keep_the_budget_and_every_row():
    batches = token_batches(LENGTHS, 1000, 16)
    assert sorted(i for b in batches for i in b) == list(range(200))
    assert all(len(b) <= 16 and len(b) * max(LENGTHS[i] for i in b) <= 1000 for b in batches)
    assert token_batches([5000], 10, 4) == [[0]]
    assert token_batches([], 10, 4) == []
    assert sum(len(b) * max(LENGTHS[i] for i in b) for b in batches) < 1.15 * sum(LENGTHS)


def test_the_longest_come_first_and_equal_lengths_keep_their_order():
    assert token_batches([3, 9, 3, 9, 3], 18, 2) == [[1, 3], [0, 2], [4]]
    assert token_batches(LENGTHS, 1000, 16) == token_batches(list(LENGTHS), 1000, 16)


@pytest.mark.parametrize(("rows", "counted"), [([0, 1], (18, 6)), ([1], (9, 0)), ([0, 1, 2], (27, 10))])
def test_tokens_of_a_batch_are_counted_with_its_pads(rows, counted):
    assert count_tokens([3, 9, 5], rows) == counted
