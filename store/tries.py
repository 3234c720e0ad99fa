"""How often a shard was begun and not ended: one that kills its actor (out of memory, a crash in a library) is named.

`ROOT/tries/FEATURE/PART.json`, written when an actor begins the shard and removed when it ends it, in whichever way; only a
process that died leaves it behind. Ray starts such an actor, and its task, again without end.
"""

import os
import socket
from contextlib import suppress

from .errors import VinnowError
from .facts import read_fields
from .files import exists, join, open_fs, write_json
from .names import path_part

FOLDER = "tries"


class PoisonError(VinnowError):
    """A shard's computation ended its process again and again."""


def begin(root: str | os.PathLike[str], feature: str, shard: str, most: int, rows: str) -> int:
    """Note that a shard is begun; `rows` says which they are. Returns how often it was begun before, and never ended.

    Raises:
        PoisonError: it was begun `most` times before and never ended.
    """
    path = _path(root, feature, shard)
    kinds = {"tries": int, "host": str | None}
    seen = read_fields(path, "count of tries", "Delete it.", **kinds) if exists(path) else {"tries": 0}
    before = int(seen["tries"])
    if before >= most:
        where = f", at last on {seen['host']}" if seen["host"] else ""
        raise PoisonError(
            f"the process that computed {feature} of {shard} ({rows}) died {before} times{where}. Was its memory not "
            "enough? Give it more, or a smaller token_budget; or leave those rows out."
        )
    write_json(path, {"tries": before + 1, "host": socket.gethostname(), "pid": os.getpid()})
    return before


def end(root: str | os.PathLike[str], feature: str, shard: str) -> None:
    """Note that a shard's computation ended, well or with an error of its own."""
    fs, inner = open_fs(_path(root, feature, shard))
    with suppress(FileNotFoundError):
        fs.delete_file(inner)


def forget(root: str | os.PathLike[str], feature: str) -> None:
    """Begin to count anew: a run that was stopped from outside left the shards that were under way."""
    fs, inner = open_fs(join(root, FOLDER, feature))
    if exists(join(root, FOLDER, feature)):
        fs.delete_dir(inner)


def _path(root: str | os.PathLike[str], feature: str, shard: str) -> str:
    return join(root, FOLDER, path_part(feature, "feature or kind"), f"{path_part(shard, 'part')}.json")
