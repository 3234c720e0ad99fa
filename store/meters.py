"""What work measures while it goes on: counters and gauges by name, kept in this process until somebody exports them.

Every meter of the package stands here, so that dashboards and code cannot drift. Whoever runs under Ray calls
`export_to(ray.util.metrics)`; without that a meter is an entry in a dictionary, and no library is imported. Values are
added a batch, a part or a step at a time, and exported by a thread once a second: Ray forgets a gauge that is not set
again within two of its reports.

Labels say what kind of thing is measured, never which row, part, step or trial: a meter has at most `MOST` combinations of
them in a process. Of a counter, what is more is counted under "other"; of a gauge, it is left out. Either is told once.
"""

import atexit
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

MOST = 200
# seconds between exports
_EVERY = 1.0
_NEXT_TO_NOTHING = 1e-9
_OTHER = "other"
_LOG = logging.getLogger("vinnow.meters")


@dataclass(frozen=True)
class Meter:
    """One thing that is measured: a counter only grows; a gauge is what it was last set to."""

    name: str
    kind: Literal["counter", "gauge"]
    about: str
    labels: tuple[str, ...] = ()

    @property
    def exported(self) -> str:
        """What Prometheus calls it, where Ray exports it."""
        return f"ray_{self.name}{'_total' if self.kind == 'counter' else ''}"

    def add(self, value: float, **labels: str) -> None:
        """Let a counter grow; all its labels are to be given."""
        if value > 0:
            _BOARD.take(self, value, labels)

    def begin(self, **labels: str) -> None:
        """Have a counter be there before it grows: one that begins at its first value has no rate. Ray's take no 0."""
        _BOARD.take(self, _NEXT_TO_NOTHING, labels)

    def set(self, value: float, **labels: str) -> None:
        """Set a gauge; all its labels are to be given. It is told until it is dropped, or this process ends."""
        _BOARD.take(self, value, labels)

    def drop(self, **labels: str) -> None:
        """Tell a gauge no more: what it is of has ended."""
        _BOARD.drop(self, labels)


FEATURE_ROWS = Meter("vinnow_feature_rows", "counter", "Rows computed, once for each checkpoint.", ("kind",))
FEATURE_TOKENS = Meter(
    "vinnow_feature_tokens", "counter", "Tokens computed with their pads, once for each checkpoint.", ("kind",)
)
ACTOR_SECONDS = Meter(
    "vinnow_actor_seconds",
    "counter",
    "Seconds of actors by what they did: loading, waiting, reading, computing, writing.",
    ("flow", "doing"),
)
REFUSED_ROWS = Meter(
    "vinnow_refused_rows", "counter", "Rows refused, once for each checkpoint and try.", ("stage", "reason")
)
PARTS = Meter("vinnow_parts", "gauge", "Parts of a flow that are done or waiting.", ("flow", "state"))
TRAIN_STEPS = Meter("vinnow_train_steps", "counter", "Optimizer steps.", ("training",))
TRAIN_ROWS = Meter("vinnow_train_rows", "counter", "Rows trained on, an epoch each.", ("training",))
TRAIN_TOKENS = Meter("vinnow_train_tokens", "counter", "Tokens trained on.", ("training",))
TRAIN_STEP = Meter("vinnow_train_step", "gauge", "The step that a training has done.", ("training",))
TRAIN_PLANNED = Meter("vinnow_train_planned_steps", "gauge", "The steps that it is to do.", ("training",))
TRAIN_LOSS = Meter("vinnow_train_loss_nats", "gauge", "Loss of the last step, in nats a token.", ("training",))
VALIDATION_LOSS = Meter("vinnow_train_validation_loss_nats", "gauge", "Loss of the held-out rows.", ("training",))
LEARNING_RATE = Meter("vinnow_train_learning_rate", "gauge", "Learning rate of the last step.", ("training",))
QUESTIONS = Meter("vinnow_evaluation_questions", "counter", "Questions answered.", ("benchmark",))
TRIALS = Meter("vinnow_sweep_trials", "gauge", "Trials of a sweep: done, running, waiting, failed.", ("state",))
ACCURACY = Meter(
    "vinnow_trial_accuracy_ratio",
    "gauge",
    "Share of right answers of a finished trial.",
    ("selector", "budget", "seed", "variant"),
)
METERS = (
    *(FEATURE_ROWS, FEATURE_TOKENS, ACTOR_SECONDS, REFUSED_ROWS, PARTS),
    *(TRAIN_STEPS, TRAIN_ROWS, TRAIN_TOKENS, TRAIN_STEP, TRAIN_PLANNED, TRAIN_LOSS, VALIDATION_LOSS, LEARNING_RATE),
    *(QUESTIONS, TRIALS, ACCURACY),
)


class Stopwatch:
    """Gives each stretch of a worker's time to what it was spent on."""

    def __init__(self, flow: str) -> None:
        self.flow, self._since = flow, time.perf_counter()

    def spent(self, doing: str) -> None:
        """Say what the time since the last call, or since it was made, was spent on."""
        now = time.perf_counter()
        ACTOR_SECONDS.add(now - self._since, flow=self.flow, doing=doing)
        self._since = now


def count_refused(stage: str, reasons: Mapping[str, int]) -> None:
    """Count refused rows by reason."""
    for reason, rows in reasons.items():
        REFUSED_ROWS.add(rows, stage=stage, reason=reason)


def tell_parts(flow: str, done: int, total: int) -> None:
    """Say how many parts of a flow are done, of how many."""
    PARTS.set(done, flow=flow, state="done")
    PARTS.set(total - done, flow=flow, state="waiting")


def export_to(metrics: Any) -> None:
    """Export this process's meters to a module that has `Counter` and `Gauge` as `ray.util.metrics` has them."""
    _BOARD.export_to(metrics)


def flush() -> None:
    """Export now what is not exported yet: at the end of a piece of work."""
    _BOARD.flush()


class _Board:
    """The values of this process, and where they go: growth of counters since the last export, gauges as they are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._series: dict[Meter, set[tuple[str, ...]]] = {}
        self._growth: dict[tuple[Meter, tuple[str, ...]], float] = {}
        self._gauges: dict[tuple[Meter, tuple[str, ...]], float] = {}
        self._sink: dict[Meter, Any] | None = None
        self._process, self._ended, self._told = 0, threading.Event(), set[str]()

    def take(self, meter: Meter, value: float, labels: Mapping[str, str]) -> None:
        place = _place(meter, labels)
        with self._lock:
            known = self._series.setdefault(meter, set())
            if place not in known and len(known) >= MOST:
                self._tell(meter.name, f"{meter.name} has {MOST} combinations of labels; others are not told apart")
                if meter.kind == "gauge":
                    return
                place = (_OTHER,) * len(place)
            known.add(place)
            if meter.kind == "gauge":
                self._gauges[meter, place] = value
            else:
                self._growth[meter, place] = self._growth.get((meter, place), 0.0) + value

    def drop(self, meter: Meter, labels: Mapping[str, str]) -> None:
        with self._lock:
            self._gauges.pop((meter, _place(meter, labels)), None)

    def export_to(self, metrics: Any) -> None:
        kinds = {"counter": metrics.Counter, "gauge": metrics.Gauge}
        with self._lock:
            if self._sink is None or self._process != os.getpid():
                self._sink = {m: kinds[m.kind](m.name, description=m.about, tag_keys=m.labels) for m in METERS}
                self._process = os.getpid()
                threading.Thread(target=self._keep_on, name="meters", daemon=True).start()
                atexit.register(self._ended.set)
        self.flush()

    def _keep_on(self) -> None:
        while not self._ended.wait(_EVERY) and self._sink is not None:
            self.flush()

    def flush(self) -> None:
        with self._lock:
            # a fork of an exporting process has no thread that would send anything
            if self._sink is None or self._process != os.getpid():
                return
            growth, self._growth = self._growth, {}
            try:
                for (meter, place), value in (growth | self._gauges).items():
                    series, tags = self._sink[meter], dict(zip(meter.labels, place, strict=True))
                    series.inc(value, tags) if meter.kind == "counter" else series.set(value, tags)
            except Exception as error:  # noqa: BLE001 – numbers for a dashboard: the work goes on
                self._sink = None
                self._tell("sink", f"metrics are no longer exported from process {os.getpid()}: {error}")

    def _tell(self, what: str, words: str) -> None:
        if what not in self._told:
            self._told.add(what)
            _LOG.warning(words)


def _place(meter: Meter, labels: Mapping[str, str]) -> tuple[str, ...]:
    if set(labels) != set(meter.labels):
        raise KeyError(f"{meter.name} has the labels {meter.labels}, not {tuple(labels)}")
    return tuple(str(labels[name]) for name in meter.labels)


_BOARD = _Board()
