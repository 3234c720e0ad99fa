"""A test set that becomes longer: its pool is made beside the one that is there, and takes its place if it holds all of it.

Killed at any point, the next try finds the old pool or the new one, and ends in the new one.
"""

import os
import shutil

import numpy as np

from ...pool.ingest import MANIFEST, IngestConfig, IngestReport, ingest
from ...pool.reader import Pool
from ...store.errors import InputError
from ...store.files import exists, join

_NEXT, _BEFORE = "test-next", "test-before"


def check_longer(out: str, config: IngestConfig) -> None:
    """Ingest a test set beside the run's, and see that it has every row of that, as it was.

    Raises:
        InputError: it has not: answers that are there would be of no use; names how many.
    """
    shutil.rmtree(join(out, _NEXT), ignore_errors=True)
    ingest(config, join(out, _NEXT))
    try:
        _check(out)
    except InputError:
        shutil.rmtree(join(out, _NEXT), ignore_errors=True)
        raise


def take_longer(out: str, config: IngestConfig) -> IngestReport:
    """Put a longer test set into the place of the run's; `end_longer` follows, once that is noted.

    Raises: as `check_longer`.
    """
    before, now, after = (join(out, n) for n in (_BEFORE, "test", _NEXT))
    report = ingest(config, after)
    _check(out)
    if exists(now):
        shutil.rmtree(before, ignore_errors=True)
        os.replace(now, before)
    os.replace(after, now)
    return report


def end_longer(out: str) -> None:
    """Drop the pool that was there."""
    shutil.rmtree(join(out, _BEFORE), ignore_errors=True)


def _check(out: str) -> None:
    place = next((n for n in ("test", _BEFORE) if exists(join(out, n, MANIFEST))), None)
    if place is None:
        return
    old, new = Pool(join(out, place)), Pool(join(out, _NEXT))
    gone = int((~np.isin(old.ids(), new.ids())).sum())
    if gone:
        raise InputError(
            f"{out}: the test set is another one: it lacks {gone:,} of {old.rows:,} questions that were asked. With that, "
            "the answers of every trial would be made anew. Use a test set that holds the old one, or another `out`."
        )
    order = np.argsort(new.ids())
    same = order[np.searchsorted(new.ids()[order], old.ids())]
    for column in ("task", "image_hash"):
        was, now = old.column(column).tolist(), new.column(column)[same].tolist()
        other = sum(a != b for a, b in zip(was, now, strict=True) if a is not None and b is not None)
        if other:
            raise InputError(
                f"{out}: the test set is another one: {other:,} of {old.rows:,} questions have another {column} than when "
                "they were asked. With that, the answers of every trial would be made anew. Use another `out`."
            )
