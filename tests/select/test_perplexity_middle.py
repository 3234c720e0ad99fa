"""perplexity_middle against a naive sort by the distance to the median."""

import statistics

import pytest
from vinnow.select import registry


def losses(world):
    """Return the last checkpoint's loss of each row."""
    return dict(zip(world.ids.tolist(), world.pool["loss"][30][:, 0].astype(float).tolist(), strict=True))


def taken(world, written, rows, **config):
    """Return what it picks."""
    selector = registry.make("perplexity_middle", config)
    return selector.pick(selector.score(world.view(written, selector.needs), 0), rows, 0)["sample_id"].to_pylist()


def test_takes_the_losses_nearest_to_the_median(world, written):
    loss = losses(world)
    middle = statistics.median(loss.values())
    assert taken(world, written, 25) == sorted(loss, key=lambda i: (abs(loss[i] - middle), i))[:25]


def test_by_rank_as_many_lie_above_as_below(world, written):
    loss = losses(world)
    values = sorted(loss.values())
    rank = {i: sum(v < loss[i] for v in values) + sum(v == loss[i] for v in values) / 2 for i in loss}
    by_hand = sorted(loss, key=lambda i: (abs(rank[i] / len(loss) - 0.5), i))[:25]
    picks = taken(world, written, 25, near="rank")
    assert picks == by_hand
    middle = statistics.median(loss.values())
    assert abs(sum(loss[i] > middle for i in picks) - sum(loss[i] < middle for i in picks)) <= 1


@pytest.mark.parametrize("near", ["loss", "rank"])
def test_equal_losses_go_by_id(world, written, near, monkeypatch):
    from vinnow.select.view import View

    load = View.load
    monkeypatch.setattr(View, "load", lambda self, kind, step: load(self, kind, step) * 0)
    assert taken(world, written, 5, near=near) == sorted(world.ids.tolist())[:5]
