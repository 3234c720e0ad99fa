"""A test set that becomes longer: its pool is made beside the one that is there, and takes its place if it holds all of it.

Killed at any point, the next try finds the old pool or the new one, and ends in the one that its config names.
"""

import os
import shutil

import numpy as np

from ...pool.ingest import MANIFEST, IngestConfig, IngestReport, ingest
from ...pool.reader import Pool
from ...store.errors import InputError
from ...store.files import exists, is_uri, join

_NEXT, _BEFORE = "test-next", "test-before"


def check_longer(out: str, config: IngestConfig, beside: str | None = None) -> None:
    """Ingest a test set beside the run's, and see that it has every row of that, as it was.

    `beside`: the folder that it is ingested into, for who only wants to know; left out: where `take_longer` finds it.

    Raises:
        InputError: it has not: answers that are there would be of no use; names how many.
    """
    if is_uri(out):
        raise InputError(
            f"{out}: a longer test set takes the place of the one before by renaming folders, which no "
            "URI can. Go on with the run in a folder, or name another `out`."
        )
    place = beside or join(out, _NEXT)
    shutil.rmtree(place, ignore_errors=True)
    ingest(config, place)
    try:
        _check(out, place)
    except InputError:
        shutil.rmtree(place, ignore_errors=True)
        raise


def take_longer(out: str, config: IngestConfig) -> IngestReport:
    """Put a longer test set into the place of the run's; `end_longer` follows, once that is noted.

    Raises: as `check_longer`.
    """
    before, now, after = (join(out, n) for n in (_BEFORE, "test", _NEXT))
    report = ingest(config, after)
    _check(out, after)
    if exists(now):
        shutil.rmtree(before, ignore_errors=True)
        os.replace(now, before)
    os.replace(after, now)
    return report


def end_longer(out: str) -> None:
    """Drop what a swap that is noted, or was given up, left beside the pool that is there.

    The pool that was there comes back where a swap was cut off between its renames, and the config is the old one again.
    """
    if is_uri(out):
        return
    before, now, after = (join(out, n) for n in (_BEFORE, "test", _NEXT))
    if exists(before) and not exists(now):
        os.replace(before, now)
    for place in (before, after):
        shutil.rmtree(place, ignore_errors=True)


def _check(out: str, after: str) -> None:
    place = next((n for n in ("test", _BEFORE) if exists(join(out, n, MANIFEST))), None)
    if place is None:
        return
    old, new = Pool(join(out, place)), Pool(after)
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
