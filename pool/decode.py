"""Rows of a pool → token ids and decoded pictures, or a refusal with a reason: the one place that finds a row unusable.

Features, answers and training all read rows here. Threads decode pictures (PIL does it outside the GIL) while the caller's
thread makes token ids.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from ..store.errors import InputError
from .encode import Encoded, EncodeError, Encoder
from .images import load_image
from .records import Record
from .refusals import ImageError, RefusedError
from .vision import Media, Size

# one row's fault: it is refused, the others go on; any other error is the settings' or the model's, and ends the run
RowError = RefusedError | EncodeError | ImageError
ROW_ERRORS = (RefusedError, EncodeError, ImageError)


class Refusal(NamedTuple):
    """A row that cannot be used; `reason` is one of `refusals.REASONS`."""

    sample_id: int
    source: str
    reason: str
    detail: str


@dataclass(frozen=True)
class _Begun:
    """A row whose pictures are being decoded."""

    record: Record
    encoded: Encoded
    pictures: list[Future[Media]]

    def result(self) -> Encoded | Refusal:
        try:
            return self.encoded.showing([p.result() for p in self.pictures])
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
    ) -> list[Encoded | Refusal]:
        """Return all records with their pictures, in order; `encode` makes their token ids (by default as `encode`)."""
        begun: list[_Begun | Refusal] = []
        for record in records:
            encoded = attempt(encode or self.encode, record)
            begun.append(encoded if isinstance(encoded, Refusal) else self._begin(record, encoded))
        return [row if isinstance(row, Refusal) else row.result() for row in begun]

    def batches(self, batches: Iterable[Sequence[tuple[Record, Encoded]]]) -> Iterator[list[Encoded | Refusal]]:
        """Yield batches of encoded rows with their pictures; those of the next batch are decoded meanwhile."""
        waiting: list[_Begun] | None = None
        for batch in batches:
            begun = [self._begin(record, encoded) for record, encoded in batch]
            if waiting is not None:
                yield [row.result() for row in waiting]
            waiting = begun
        if waiting is not None:
            yield [row.result() for row in waiting]

    def encode(self, record: Record) -> Encoded:
        """Return a record's token ids. Raises: `EncodeError`; `ImageError` where they depend on its pictures' sizes."""
        return self.encoder.encode(record, self.sizes(record))

    def sizes(self, record: Record) -> list[Size] | None:
        """Return the sizes of a record's pictures, where its token ids depend on them. Raises: as `images.load_image`."""
        return self.encoder.sizes(self.root, record)

    def pictures(self, record: Record, encoded: Encoded) -> Encoded:
        """Return one encoded record with its pictures. Raises: `ImageError`, as `images.load_image`."""
        return encoded.showing([self._picture(record, image) for image in encoded.images])

    def _begin(self, record: Record, encoded: Encoded) -> _Begun:
        return _Begun(record, encoded, [self._threads.submit(self._picture, record, i) for i in encoded.images])

    def _picture(self, record: Record, image: str) -> Media:
        return self.encoder.load(self.root, image, record.seen(image), len(record.images))


def is_readable(root: str | None, record: Record) -> bool:
    """Say whether all pictures of a record can be read by now, as they were at ingest."""
    try:
        for image in record.images:
            load_image(root, image, seen=record.seen(image))
    except InputError:  # still not
        return False
    return True
