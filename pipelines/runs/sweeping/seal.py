"""Which of Tune's own state a killed sweep may read back.

Tune keeps an experiment as pickles, and reading a pickle runs what it says. A run's folder may come from anywhere, so they
are read only where this user's vinnow wrote them, to the byte: a seal beside them holds their hashes under a key
(`~/.vinnow/tune.key`, read by nobody else) that no run's folder has. Without key or seal, or with other bytes, the trials'
own folders say what is done, and that is told.
"""

import hashlib
import hmac
import json
import os
from fnmatch import fnmatch
from pathlib import Path

from ....store.errors import VinnowError
from ....store.facts import read_fields
from ....store.files import write_json

SEAL, KEY = "seal.json", "~/.vinnow/tune.key"
# what `Tuner.restore` reads of an experiment's folder; each must be there once, or more often where a session wrote another
STATE = ("tuner.pkl", "experiment_state-*.json", "search_gen_state-*.json", "searcher-state-*.pkl")


def state_files(place: str) -> list[str]:
    """Return the names of an experiment's state, sorted."""
    names = os.listdir(place) if os.path.isdir(place) else []
    whole = [n for n in names if not n.startswith((".", "tmp-"))]
    return sorted(n for n in whole if any(fnmatch(n, pattern) for pattern in STATE) or n.endswith(".pkl"))


def seal(place: str, shape: str, ended: bool = False) -> None:
    """Put the seal on an experiment's state as it is now; `shape`: what it is an experiment of. No key: no seal."""
    key = _key()
    if key is None:
        return
    hashes = _hashes(place)
    text = json.dumps([shape, ended, hashes], sort_keys=True)
    write_json(os.path.join(place, SEAL), {"shape": shape, "ended": ended, "files": hashes, "mark": _mark(key, text)})


def why_not(place: str, shape: str) -> str | None:
    """Return why an experiment that was cut off cannot be taken up again; None where it can; "" where there is none."""
    path = os.path.join(place, SEAL)
    if not os.path.exists(path):
        return "" if not os.path.exists(os.path.join(place, "tuner.pkl")) else "it has no seal"
    try:
        kinds = {"shape": str, "ended": bool, "files": dict[str, str], "mark": str}
        said = read_fields(path, "seal of Tune's state", "Delete it and run again.", **kinds)
    except VinnowError as error:
        return str(error)
    key = _key()
    if key is None:
        return f"there is no key ({KEY})"
    text = json.dumps([said["shape"], said["ended"], said["files"]], sort_keys=True)
    if not hmac.compare_digest(said["mark"], _mark(key, text)):
        return "its seal is not this user's on this machine"
    if said["ended"]:
        return ""
    if said["shape"] != shape:
        return "the run, its devices or Ray's version are others than then"
    if said["files"] != _hashes(place):
        return "it is not as it was sealed"
    lacking = [pattern for pattern in STATE if not any(fnmatch(n, pattern) for n in said["files"])]
    return f"it lacks {', '.join(lacking)}" if lacking else None


def _hashes(place: str) -> dict[str, str]:
    return {n: hashlib.sha256(Path(place, n).read_bytes()).hexdigest() for n in state_files(place)}


def _mark(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _key() -> bytes | None:
    """Return this user's key, made if there is none; None where others may read it, or it cannot be made."""
    path = Path(KEY).expanduser()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            own = path.with_name(f"{path.name}.{os.getpid()}")
            with open(os.open(own, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as sink:
                sink.write(os.urandom(32))
            try:
                os.link(own, path)  # whole, and only if nobody was first
            except FileExistsError:
                pass
            finally:
                own.unlink()
        status = path.stat()
        return None if status.st_uid != os.getuid() or status.st_mode & 0o077 else path.read_bytes()
    except OSError:
        return None
