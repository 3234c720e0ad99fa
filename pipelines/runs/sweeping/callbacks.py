"""What Tune tells of its trials: the callbacks of a sweep, in one place."""

from typing import Any

from ..config import RunConfig


def tune_callbacks(config: RunConfig) -> list[Any]:
    """Return the `tune.Callback`s of a run's sweep; Tune pickles them, so they hold plain values."""
    return []
