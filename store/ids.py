"""Content ids: the same record has the same id in any file, order or machine."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from .files import digest


def canonical(image: str | Sequence[str] | None, conversations: Sequence[dict[str, str]]) -> bytes:
    """Return the bytes that identify a record: its image paths and its turns; not its `id`, which repeats in mix665k.

    One image is its path, not a list of one: such ids are those of pools that knew one image only.
    """
    turns = [[t["from"], t["value"]] for t in conversations]
    return json.dumps([image, turns], ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


class IdGiver:
    """Gives `sample_id`s: hash of (content, occurrence number), so that exact repeats stay apart and stable."""

    def __init__(self) -> None:
        self._seen: dict[bytes, int] = defaultdict(int)

    def give(self, image: str | Sequence[str] | None, conversations: Sequence[dict[str, str]]) -> tuple[int, int]:
        """Return `(sample_id, occurrence)`; occurrence 0 is the first record with this content."""
        # 16 bytes a record instead of the text: 665K records cost some 60 MB here
        content = hashlib.blake2b(canonical(image, conversations), digest_size=16).digest()
        occurrence = self._seen[content]
        self._seen[content] = occurrence + 1
        tagged = hashlib.blake2b(content + occurrence.to_bytes(8, "little"), digest_size=8).digest()
        return int.from_bytes(tagged, "little"), occurrence


def ids_digest(ids: Sequence[int] | np.ndarray[Any, Any]) -> str:
    """Digest a set of ids; their order does not matter. Ids are content hashes, so this names a pool's content."""
    return digest(np.sort(np.asarray(ids, dtype=np.uint64)).astype("<u8").tobytes())
