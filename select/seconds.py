"""What scoring and picking took: `OUT/scores/seconds.json`, by the scores' key and by the picks' file.

Beside the tables, not in them: equal scores stay equal files. What was scored before there was such a note is not known.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

from ..store.facts import read_fields
from ..store.files import exists, join, write_json

Work = Literal["scored", "picked"]


@dataclass(frozen=True)
class Took:
    """Seconds by the clock, and those that this process's cores worked, all threads together."""

    seconds: float
    cpu: float


@contextmanager
def timed(out: str, work: Work, name: str) -> Iterator[None]:
    """Note what the body took, if it ends well."""
    start, cpu = time.perf_counter(), time.process_time()
    yield
    took = Took(round(time.perf_counter() - start, 4), round(time.process_time() - cpu, 4))
    noted = _noted(out)
    noted[work] = noted[work] | {name: asdict(took)}
    write_json(_path(out), noted)


def took(out: str, work: Work, name: str) -> Took | None:
    """Return what the scores of a key, or the picks of a file, took to make; None where nobody noted it.

    Raises:
        DamagedError: something else lies in the note's place.
    """
    one = _noted(out)[work].get(name)
    return None if one is None else Took(one["seconds"], one["cpu"])


def _path(out: str) -> str:
    return join(out, "scores", "seconds.json")


def _noted(out: str) -> dict[str, dict[str, dict[str, float]]]:
    if not exists(_path(out)):
        return {"scored": {}, "picked": {}}
    kinds = dict.fromkeys(("scored", "picked"), dict[str, dict[str, float]])
    return read_fields(_path(out), "note of seconds", "Delete it: what it says is then not known.", **kinds)
