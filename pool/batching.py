"""Batches under a token budget: rows of like length together, so that little is padded.

The one batcher of features, answers and whatever else computes a part of a pool at a time. The window in which rows are
sorted is what the caller gives, a part; the same lengths give the same batches.
"""

from collections.abc import Sequence


def token_batches(lengths: Sequence[int], budget: int, max_rows: int) -> list[list[int]]:
    """Split rows into batches with `rows × longest ≤ budget` and at most `max_rows` rows; longest first.

    A row longer than the budget is a batch of its own. Every row is in exactly one batch; equal lengths keep their order.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        longest = lengths[batches[-1][0]] if batches else 0
        if batches and len(batches[-1]) < max_rows and (len(batches[-1]) + 1) * longest <= budget:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def count_tokens(lengths: Sequence[int], batch: Sequence[int]) -> tuple[int, int]:
    """Return how many tokens a batch of these rows computes, and how many of them are pads."""
    computed = max(lengths[i] for i in batch) * len(batch)
    return computed, computed - sum(lengths[i] for i in batch)
