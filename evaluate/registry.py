"""Finding benchmarks: every file of `benchmarks/`, and of the folders that `VINNOW_BENCHMARKS` lists (as PATH does).

A benchmark's file ends in `BENCHMARK = ItsClass` (see `benchmark.py`). On a cluster every node needs the listed folders at
the same place.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

from ..store.errors import InputError, suggest
from ..store.scan import classes_of, modules_of, refuse_lacking
from .benchmark import Benchmark

HERE = Path(__file__).parent / "benchmarks"
VARIABLE = "VINNOW_BENCHMARKS"
_MEMBERS = ("name", "suffix", "ask", "check", "score", "records", "aggregate", "submit")


def names() -> list[str]:
    """List the benchmarks' names."""
    return sorted(_classes(os.environ.get(VARIABLE, "")))


def find(name: str) -> Benchmark:
    """Return a benchmark.

    Raises:
        InputError: there is none of this name (names the nearest one); a benchmark's file does not fit.
    """
    classes = _classes(os.environ.get(VARIABLE, ""))
    if name not in classes:
        raise InputError(f"unknown benchmark {name!r}{suggest(name, classes)}")
    return classes[name]()


@cache
def _classes(extra: str) -> dict[str, type[Any]]:
    package = __name__.rsplit(".", 1)[0]
    return classes_of(modules_of(f"{package}.benchmarks", HERE, VARIABLE), "BENCHMARK", "benchmark", _check)


def _check(kind: type[Any], file: Path) -> None:
    refuse_lacking(kind, _MEMBERS, file, "evaluate/benchmark.py")
