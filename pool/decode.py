"""Rows of a pool → token ids and decoded pictures, or a refusal with a reason: the one place that finds a row unusable.

Features, answers and training all read rows here. Threads decode pictures (PIL does it outside the GIL) while the caller's
thread makes token ids.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..store.errors import InputError
from .encode import Encoded, EncodeError, Encoder
from .images import load_image
from .records import Record
from .refusals import ImageError, RefusedError

# one row's fault: it is refused, the others go on; any other error is the settings' or the model's, and ends the run
RowError = RefusedError | EncodeError | ImageError
ROW_ERRORS = (RefusedError, EncodeError, ImageError)
# the pictures of one row, uint8 [3, H, W] each, in the order of its marks
Pictures = list[np.ndarray[Any, Any]]


class Refusal(NamedTuple):
    """A row that cannot be used; `reason` is one of `refusals.REASONS`."""

    sample_id: int
    source: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Ready:
    """A row that can be fed."""

    encoded: Encoded
    pictures: Pictures


@dataclass(frozen=True)
class _Begun:
    """A row whose pictures are being decoded."""

    record: Record
    encoded: Encoded
    pictures: list[Future[Any]]

    def result(self) -> Ready | Refusal:
        try:
            return Ready(self.encoded, [p.result() for p in self.pictures])
        except ROW_ERRORS as error:
            return refusal(self.record, error)


def refusal(record: Record, error: RowError) -> Refusal:
    """Return how a record that raised this is listed."""
    return Refusal(record.sample_id, record.source, error.reason, str(error))


def attempt(encode: Callable[[Record], Encoded], record: Record) -> Encoded | Refusal:
    """Return the record's token ids, or its refusal when `encode` finds it unusable."""
    try:
        return encode(record)
    except ROW_ERRORS as error:
        return refusal(record, error)


class Decoder:
    """Reads rows with one encoder from one image root; `threads` decode pictures."""

    def __init__(self, encoder: Encoder, root: str | None, threads: int = 1) -> None:
        self.encoder, self.root = encoder, root
        self._threads = ThreadPoolExecutor(max(1, threads))

    def rows(
        self, records: Sequence[Record], encode: Callable[[Record], Encoded] | None = None
    ) -> list[Ready | Refusal]:
        """Return all records, in order; `encode` makes their token ids (the encoder's, unless it is given)."""
        begun: list[_Begun | Refusal] = []
        for record in records:
            encoded = attempt(encode or self.encoder.encode, record)
            begun.append(encoded if isinstance(encoded, Refusal) else self._begin(record, encoded))
        return [row if isinstance(row, Refusal) else row.result() for row in begun]

    def batches(self, batches: Iterable[Sequence[tuple[Record, Encoded]]]) -> Iterator[list[Ready | Refusal]]:
        """Yield batches of encoded rows with their pictures; those of the next batch are decoded meanwhile."""
        waiting: list[_Begun] | None = None
        for batch in batches:
            begun = [self._begin(record, encoded) for record, encoded in batch]
            if waiting is not None:
                yield [row.result() for row in waiting]
            waiting = begun
        if waiting is not None:
            yield [row.result() for row in waiting]

    def pictures(self, record: Record, encoded: Encoded) -> Pictures:
        """Return the pictures of one encoded record. Raises: `ImageError`, as `images.load_image`."""
        return [self._picture(record, image) for image in encoded.images]

    def _begin(self, record: Record, encoded: Encoded) -> _Begun:
        return _Begun(record, encoded, [self._threads.submit(self._picture, record, i) for i in encoded.images])

    def _picture(self, record: Record, image: str) -> np.ndarray[Any, Any]:
        return self.encoder.load(self.root, image, record.seen(image))


def is_readable(root: str | None, record: Record) -> bool:
    """Say whether all pictures of a record can be read by now, as they were at ingest."""
    try:
        for image in record.images:
            load_image(root, image, seen=record.seen(image))
    except InputError:  # still not
        return False
    return True
