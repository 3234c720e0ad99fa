"""A run's folder is opened: its resolved config is saved, or a folder that another config made is refused."""

from typing import Any

from ... import __version__
from ...store.errors import InputError
from ...store.files import exists, join, write_json
from ...store.manifest import Manifest
from .config import PLACES, POOLS, RunConfig, saved_run
from .stage import Run


def start(config: RunConfig) -> Run:
    """Open a run's folder: save the resolved config, or refuse a folder that another config made."""
    saved = join(config.out, "run.json")
    tree = {"digest": config.digest(), "config": config.model_dump(mode="json"), "version": __version__}
    if exists(saved):
        before = saved_run(config.out)
        if before["digest"] != tree["digest"] and _digest_now(before["config"]) != tree["digest"]:
            changed = differences(before["config"], tree["config"])
            raise InputError(
                f"{config.out}: this run was started with another config: {'; '.join(changed[:8])}. "
                "Use another `out`, or delete that folder to begin again."
            )
    else:
        write_json(saved, tree)
    return Run(config, Manifest(config.out, __version__))


def _digest_now(saved: dict[str, Any]) -> str:
    """Return the digest of a saved config as it is read today: an older one held fields that its kinds never read."""
    try:
        return RunConfig.parse(saved).digest()
    except InputError:
        return ""


def differences(before: Any, now: Any, where: str = "") -> list[str]:
    """List the leaves in which two plain trees differ, as `a.b: was X, is Y`."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = sorted(set(before) | set(now))
        return [d for n in names for d in differences(before.get(n), now.get(n), f"{where}.{n}".lstrip("."))]
    if _are_sections(before) and _are_sections(now) and len(before) == len(now):
        return [d for i, pair in enumerate(zip(before, now)) for d in differences(*pair, f"{where}.{i}")]
    return [] if before == now or where in ("out", "ray") or _free(where) else [f"{where}: was {before!r}, is {now!r}"]


def _are_sections(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, dict) for v in value)


def _free(where: str) -> bool:
    """Say whether a field changes no result: what `RunConfig.digest` leaves out."""
    section, _, name = where.rpartition(".")
    return name in ("max_refused", "max_part_retries") or (name in PLACES and section not in POOLS)
