"""Whether a sweep's trackers can be used, found before the hours that come before it."""

import os
from pathlib import Path

from ....store.errors import InputError
from ....train.trackers import check_trackers
from ..config import SweepSection


def check_sweep_trackers(config: SweepSection) -> None:
    """Return if packages and keys are there; servers are asked when the sweep begins.

    Raises:
        InputError: names the package or the key that is missing.
    """
    try:
        check_trackers(list(config.trackers))
    except InputError as error:
        raise InputError(f"sweep.{error}") from error
    if "wandb" not in config.trackers or os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return
    kept = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    known = kept.is_file() and "machine" in kept.read_text(errors="replace")
    if not (os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_SETUP_API_KEY_HOOK") or known):
        raise InputError(
            "sweep.trackers: Weights & Biases has no key here. Set WANDB_API_KEY, run `wandb login`, or set "
            "WANDB_MODE=offline: then `wandb sync RUN/wandb/offline-run-*` sends it later."
        )
