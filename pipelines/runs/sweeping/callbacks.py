"""What Tune tells of its trials: the callbacks of a sweep, in one place."""

from typing import Any

from ..config import RunConfig


def tune_callbacks(config: RunConfig) -> list[Any]:
    """Return the `tune.Callback`s of a run's sweep; Tune pickles them, so they hold plain values."""
    from .gauges import Gauges
    from .tensorboard import TensorBoard

    callbacks: list[Any] = [Gauges(config), TensorBoard()]
    if config.sweep.trackers:
        from .trackers import TRACKERS

        callbacks += [TRACKERS[name](config) for name in config.sweep.trackers]
    return callbacks
