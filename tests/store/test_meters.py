"""Meters: bounded, exported once a second at most, harmless where nobody exports them or the export fails."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from vinnow.store import meters
from vinnow.store.meters import METERS, MOST, Meter

ROOT = Path(__file__).parents[2]
ROWS = Meter("x_rows", "counter", "Rows.", ("kind",))
LOSS = Meter("x_loss", "gauge", "Loss.", ("kind",))


class Sink:
    """Takes what is exported, as `ray.util.metrics` does."""

    def __init__(self):
        self.values, self.calls = {}, 0

    def make(self, kind):
        sink = self

        class Series:
            def __init__(self, name, description, tag_keys):
                self.name, self.labels = name, tag_keys

            def take(self, value, tags):
                assert set(tags) == set(self.labels)
                key = (self.name, *tags.values())
                sink.values[key] = value + (sink.values.get(key, 0) if kind == "counter" else 0)
                sink.calls += 1

            inc = set = take

        return Series

    @property
    def Counter(self):
        return self.make("counter")

    @property
    def Gauge(self):
        return self.make("gauge")


@pytest.fixture
def board(monkeypatch):
    monkeypatch.setattr(meters, "METERS", (ROWS, LOSS))
    monkeypatch.setattr(meters, "_BOARD", meters._Board())
    monkeypatch.setattr(meters, "_EVERY", 600.0)  # the thread waits; tests flush
    yield meters._BOARD
    meters._BOARD._ended.set()


def test_what_was_measured_before_anybody_exports_is_not_lost(board):
    sink = Sink()
    for value in (1, 2, 3):
        ROWS.add(value, kind="a")
        LOSS.set(value, kind="a")
    meters.export_to(sink)
    assert sink.values == {("x_rows", "a"): 6, ("x_loss", "a"): 3}


def test_a_thousand_values_are_exported_together(board):
    sink = Sink()
    meters.export_to(sink)
    threads = [threading.Thread(target=lambda: [ROWS.add(1, kind="a") for _ in range(1000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sink.calls == 0
    meters.flush()
    assert (sink.calls, sink.values) == (1, {("x_rows", "a"): 4000})


def test_gauges_are_told_again_until_they_are_dropped_and_a_counter_grows_once(board):
    sink = Sink()
    meters.export_to(sink)
    LOSS.set(2, kind="a")
    ROWS.begin(kind="a")
    ROWS.add(5, kind="a")
    meters.flush()
    sink.values["x_loss", "a"] = None  # as Ray forgets it
    meters.flush()
    assert sink.values == {("x_rows", "a"): pytest.approx(5), ("x_loss", "a"): 2}
    LOSS.drop(kind="a")
    del sink.values["x_loss", "a"]
    meters.flush()
    assert ("x_loss", "a") not in sink.values


def test_a_thread_exports_what_nobody_flushes(board, monkeypatch):
    monkeypatch.setattr(meters, "_EVERY", 0.01)
    sink = Sink()
    meters.export_to(sink)
    ROWS.add(5, kind="a")
    for _ in range(1000):
        if sink.values:
            break
        threading.Event().wait(0.01)
    assert sink.values == {("x_rows", "a"): 5}
    board._ended.set()


def test_labels_stay_bounded_and_that_is_told_once(board, caplog):
    sink = Sink()
    meters.export_to(sink)
    for number in range(1000):
        ROWS.add(1, kind=str(number))
        LOSS.set(number, kind=str(number))
    meters.flush()
    names = [name for name, _ in sink.values]
    assert names.count("x_rows") == MOST + 1
    assert sink.values["x_rows", "other"] == 1000 - MOST
    assert names.count("x_loss") == MOST
    assert [r.message.split()[0] for r in caplog.records] == ["x_rows", "x_loss"]


def test_an_export_that_fails_is_told_once_and_ends_nothing(board, caplog):
    class Broken(Sink):
        def make(self, kind):
            series = super().make(kind)
            series.inc = lambda self, value, tags: 1 / 0
            return series

    meters.export_to(Broken())
    for _ in range(3):
        ROWS.add(1, kind="a")
        meters.flush()
    assert len(caplog.records) == 1
    assert "no longer exported" in caplog.text
    assert "division by zero" in caplog.text


def test_a_fork_of_an_exporting_process_does_not_export(board, monkeypatch):
    sink = Sink()
    meters.export_to(sink)
    monkeypatch.setattr(board, "_process", board._process + 1)
    ROWS.add(1, kind="a")
    meters.flush()
    assert sink.calls == 0


def test_a_counter_takes_no_nothing_and_a_label_is_not_forgotten(board):
    sink = Sink()
    meters.export_to(sink)
    ROWS.add(0, kind="a")  # Ray's counters refuse it
    meters.flush()
    assert sink.calls == 0
    for wrong in ({}, {"kind": "a", "trial": "b"}):
        with pytest.raises(KeyError, match="x_rows has the labels"):
            ROWS.add(1, **wrong)


def test_meters_keep_to_the_conventions_of_prometheus():
    assert len({m.name for m in METERS}) == len(METERS)
    for meter in METERS:
        assert meter.name.startswith("vinnow_")
        assert not meter.name.endswith(("_total", "_ms", "_mb"))  # Ray adds _total itself; units are base units
        assert meter.exported.endswith("_total") == (meter.kind == "counter")
        assert meter.about.endswith(".")
        assert not {"trial", "part", "row", "step", "sample_id"} & set(meter.labels)
    stated = [n for n in dir(meters) if isinstance(getattr(meters, n), Meter)]
    assert {getattr(meters, n) for n in stated} == set(METERS)


def test_meters_import_no_library():
    code = (
        "import vinnow.store.meters, sys; print([m for m in ('ray', 'numpy', 'prometheus_client') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, check=True)
    assert done.stdout.strip() == "[]"
