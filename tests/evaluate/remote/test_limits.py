"""Buckets against a clock of their own, and the purse."""

import threading

import pytest
from vinnow.evaluate.remote.limits import Bucket, BudgetError, EndedError, Limits, Purse


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def passed(bucket, clock, units, seconds):
    """Return at what times `units` each pass in so many seconds, as fast as they may."""
    times = []
    while clock.now < seconds:
        wait = bucket.wait(units)
        if wait > 0:
            clock.now += wait
            continue
        bucket.take(units)
        times.append(clock.now)
    return times


@pytest.mark.parametrize(("per_minute", "units"), [(60, 1), (600, 1), (90, 1), (6, 1), (6000, 40), (6000, 400)])
def test_a_bucket_holds_its_rate_in_every_minute(per_minute, units):
    clock = Clock()
    times = passed(Bucket(per_minute, clock), clock, units, 300)
    assert len(times) * units == pytest.approx(5 * per_minute, rel=0.04, abs=2 * units)
    for begin in times:
        assert sum(begin <= t < begin + 59.999 for t in times) * units <= per_minute + units - 1


def test_an_idle_bucket_saves_no_more_than_a_second():
    clock = Clock()
    bucket = Bucket(600, clock)
    clock.now = 1000.0
    times = passed(bucket, clock, 1, 1001)
    assert sum(t == 1000.0 for t in times) == 10


def test_what_was_not_used_comes_back():
    clock = Clock()
    bucket = Bucket(60, clock)
    bucket.take(31)
    assert bucket.wait(1) == pytest.approx(31)
    bucket.take(-30)
    assert bucket.wait(1) == pytest.approx(1)


def test_no_limits_never_wait():
    limits = Limits(None, None)
    for _ in range(1000):
        limits.admit(10**9)


def test_tokens_and_requests_both_hold():
    clock = Clock()
    limits = Limits(60, 6000, clock)
    limits.admit(50)
    assert limits._seconds(50) == pytest.approx(1)  # the request
    clock.now += 1
    limits.admit(1000)
    clock.now += 1
    per_second = (6000 - 99) / 60
    debt = 1000 - 100 - per_second  # a full bucket and a second's tokens are paid
    assert limits._seconds(50) == pytest.approx((debt + 50) / per_second)
    limits.settle(1000, 100)
    assert limits._seconds(50) == 0
    limits.hold(7)
    assert limits._seconds(50) == pytest.approx(7)


def test_the_end_wakes_all():
    limits, purse = Limits(1, None), Purse(1.0)
    limits.admit(1)
    purse.reserve(1.0)
    ended = []

    def wait(work):
        try:
            work()
        except EndedError:
            ended.append(1)

    works = [lambda: limits.admit(1)] * 2 + [lambda: limits.sleep(100), lambda: purse.reserve(1.0)]
    threads = [threading.Thread(target=wait, args=(w,)) for w in works]
    for thread in threads:
        thread.start()
    limits.end()
    purse.end()
    for thread in threads:
        thread.join(5)
    assert len(ended) == 4


def test_a_purse_waits_for_what_is_under_way():
    purse = Purse(10.0, spent=2.0)
    purse.reserve(8.0)
    later = threading.Thread(target=purse.reserve, args=(5.0,))
    later.start()
    later.join(0.1)
    assert later.is_alive()
    purse.settle(8.0, 1.0)
    later.join(5)
    assert not later.is_alive()
    purse.settle(5.0, 5.0)
    assert purse.spent == 8.0
    with pytest.raises(BudgetError, match=r"8 is spent.*up to 3"):
        purse.reserve(3.0)
    purse.reserve(2.0)
