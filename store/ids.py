"""Content ids: the same record has the same id in any file, order or machine."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from json.encoder import encode_basestring as quoted

import numpy as np

from .arrays import Array
from .files import digest


def canonical(image: str | Sequence[str] | None, conversations: Sequence[dict[str, str]], system: str = "") -> bytes:
    """Return the bytes that identify a record: its image paths and its turns; not its `id`, which repeats in mix665k.

    One image is its path, not a list of one: such ids are those of pools that knew one image only. A system prompt of the
    record's own is a turn before the others.
    """
    # as json.dumps([image, [[from, value], …]]) without spaces or escapes beyond JSON's own, in a fifth of its time
    turns = ",".join([f"[{quoted(t['from'])},{quoted(t['value'])}]" for t in conversations])
    if system:
        turns = f'["system",{quoted(system)}],{turns}'
    if image is None:
        shown = "null"
    else:
        shown = quoted(image) if isinstance(image, str) else f"[{','.join(map(quoted, image))}]"
    return f"[{shown},[{turns}]]".encode("utf-8", "surrogatepass")


def content_of(image: str | Sequence[str] | None, conversations: Sequence[dict[str, str]], system: str = "") -> bytes:
    """Return 16 bytes that stand for a record's content."""
    return hashlib.blake2b(canonical(image, conversations, system), digest_size=16).digest()


def id_of(content: bytes, occurrence: int) -> int:
    """Return the `sample_id` of the record that is the `occurrence`-th (from 0) with this content."""
    tagged = hashlib.blake2b(content + occurrence.to_bytes(8, "little"), digest_size=8).digest()
    return int.from_bytes(tagged, "little")


class IdGiver:
    """Gives `sample_id`s: hash of (content, occurrence number), so that exact repeats stay apart and stable."""

    def __init__(self) -> None:
        self._seen: dict[bytes, int] = defaultdict(int)

    def give_to(self, content: bytes) -> tuple[int, int]:
        """Return `(sample_id, occurrence)` for a `content_of`; occurrence 0 is the first record with this content."""
        # 16 bytes per record instead of the text: 665K records cost some 100 MB here
        occurrence = self._seen[content]
        self._seen[content] = occurrence + 1
        return id_of(content, occurrence), occurrence


def ids_digest(ids: Sequence[int] | Array) -> str:
    """Digest a set of ids; their order does not matter. Ids are content hashes, so this names a pool's content."""
    return digest(np.sort(np.asarray(ids, dtype=np.uint64)).astype("<u8").tobytes())
