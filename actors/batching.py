"""Batches under a token budget: rows of like length together, so that little is padded."""

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
