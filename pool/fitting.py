"""What a model would refuse or cut of a data set's rows, before any device is taken: tokens counted, no picture decoded.

A picture's number of tokens follows from its size, and its size stands in its file's header. A model's actors refuse the
same rows when they come to them; here the whole is known beforehand.
"""

import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field

from .encode import IGNORE, CutPictureError, EncodeError, Encoder
from .images import ImageError, picture_size
from .reader import Pool
from .records import Record
from .refusals import FINDINGS, IMAGE
from .vision import Size

EXAMPLES = 3
# tokens that a template's words around a turn may be more between other words
_MORE = 8
# what any feature and training refuses; a row without a trained token is of use to some
_FORESEEN = ("picture_cut", "not_encodable")
_ROWS, _THREADS = 1024, 8


@dataclass
class Fit:
    """Rows of a pool, those that the model would refuse by reason, and a few of them.

    `unseen`: rows with a picture whose size could not be looked at; they are among no others.
    """

    rows: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    unseen: int = 0
    examples: list[str] = field(default_factory=list)


def finding(encoder: Encoder, record: Record, sizes: list[Size] | None) -> tuple[str, str] | None:
    """Return what is to be said of a row, one of `FINDINGS` and its detail; None of one that fits whole."""
    try:
        encoded = encoder.encode(record, sizes)
    except CutPictureError as error:
        return "picture_cut", _said(error, record)
    except EncodeError as error:
        return "not_encodable", _said(error, record)
    if (encoded.labels == IGNORE).all():
        return "untrained", ""
    return ("answer_cut", f"{encoded.cut} tokens") if encoded.cut else None


def sizes_of(encoder: Encoder, record: Record, root: str | None) -> list[Size] | None:
    """Return the sizes in the headers of a record's pictures; None where no number of tokens depends on them.

    Raises:
        ImageError: one cannot be looked at.
    """
    if encoder.reader.fixed is not None:
        return None
    return [picture_size(root, image) for image in record.images]


def foresee_fit(
    pool: Pool, encoder: Encoder, root: str | None, progress: Callable[[int, int], None] | None = None
) -> Fit:
    """Look at every row with a picture; those that surely end within `max_len` are not tokenised.

    A row of 800 characters takes 0.05 ms of one CPU, and 0.22 ms where the header of a local picture is looked at too.
    """
    fit, refused, bound = Fit(), Counter[str](), _Bound(encoder)
    with ThreadPoolExecutor(_THREADS) as threads:
        for records in pool.iter_batches(_ROWS):
            shown = [r for r in records if r.images]
            for record, sizes in zip(shown, threads.map(lambda r: _looked(encoder, r, root), shown), strict=True):
                if isinstance(sizes, ImageError):
                    fit.unseen += 1
                elif not bound.fits(record, sizes) and (told := finding(encoder, record, sizes)):
                    name, what = told
                    refused[name] += name in _FORESEEN
                    if name in _FORESEEN and len(fit.examples) < EXAMPLES:
                        fit.examples.append(f"record {record.sample_id}: {what or FINDINGS[name]}")
            fit.rows += len(records)
            if progress:
                progress(fit.rows, pool.rows)
    fit.refused = {name: n for name, n in refused.most_common() if n}
    return fit


def _looked(encoder: Encoder, record: Record, root: str | None) -> list[Size] | ImageError | None:
    try:
        return sizes_of(encoder, record, root)
    except ImageError as error:  # refused by that name, when the time comes
        return error


class _Bound:
    """The most tokens that a row may have up to its last picture, however its texts are tokenised: a byte is a token."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, probe = encoder, copy(encoder)
        probe.max_len = sys.maxsize
        try:
            self._one, two = (len(probe.encode(_asked(rounds)).input_ids) for rounds in (1, 2))
        except EncodeError:  # it takes no such rows, so none is passed unseen
            self._one, two = probe.max_len, probe.max_len
        self._more = two - self._one + _MORE

    def fits(self, record: Record, sizes: list[Size] | None) -> bool:
        """Say whether the last picture surely ends within `max_len`."""
        reader = self._encoder.reader.among(len(record.images))
        try:
            shown = sum(len(reader.ids(size)) for size in sizes or [None] * len(record.images))
        except EncodeError:
            return False
        marked = [i for i, turn in enumerate(record.conversations) if IMAGE in turn["value"]]
        if not marked:
            return False
        texts = [record.system, *(turn["value"] for turn in record.conversations[: marked[-1] + 1])]
        around = len(record.images) * sum(len(text.encode()) + _MORE for text in reader.around)
        said = sum(len(text.encode()) for text in texts)
        return self._one + self._more * (marked[-1] // 2 + 1) + shown + said + around <= self._encoder.max_len


def _asked(rounds: int) -> Record:
    turns = [{"from": who, "value": "a"} for who in ("human", "gpt")]
    return Record(0, "", "", (), turns * rounds)


def _said(error: EncodeError, record: Record) -> str:
    return str(error).removeprefix(f"record {record.sample_id}: ")
