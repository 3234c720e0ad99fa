"""Which pictures are asked about, and what: drawn by a seed, so that a larger limit only adds to a smaller one."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...store.files import digest
from .config import Kind
from .subjects import Subject


@dataclass(frozen=True)
class Job:
    """One prompt to be: a kind of question about a picture."""

    subject: Subject
    kind: Kind


def draw(subjects: Sequence[Subject], shares: dict[Kind, float], seed: int, limit: int | None) -> list[Job]:
    """Return a job a picture, in the source's order; the first `limit` pictures of a shuffled order, if it is given.

    Along that order each picture takes the kind that lags furthest behind its share, so of any number of pictures each
    kind has its share to within one. `shares` sum up to 1.
    """
    shuffled = sorted(range(len(subjects)), key=lambda i: (digest(str(seed), subjects[i].image), i))[:limit]
    counts = dict.fromkeys(shares, 0)
    kind_of: dict[int, Kind] = {}
    for number, i in enumerate(shuffled, 1):
        kind = max(shares, key=lambda k: shares[k] * number - counts[k])
        counts[kind] += 1
        kind_of[i] = kind
    return [Job(subjects[i], kind_of[i]) for i in sorted(shuffled)]
