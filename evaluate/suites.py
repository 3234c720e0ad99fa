"""Suites: the benchmarks that papers on data selection average over, each in a folder of its official files.

`ROOT/FOLDER` holds a benchmark's files (its row in docs/evaluation.md), `OUT/FOLDER` its answers: as `vinnow evaluate
--benchmark NAME --files ROOT/FOLDER --out OUT/FOLDER` would have it.
"""

from dataclasses import dataclass

from ..store.errors import InputError, suggest
from ..store.files import exists, join
from .config import OPEN


@dataclass(frozen=True)
class Member:
    """A benchmark of a suite: its folder, its name here, and what tables of papers call it.

    `scale`: what its figure is multiplied by to be as papers print it; 100 of a share.
    """

    folder: str
    benchmark: str
    title: str
    scale: float = 100.0


LLAVA10 = (
    Member("vqav2", "vqav2", "VQAv2"),
    Member("gqa", "gqa", "GQA"),
    Member("vizwiz", "vizwiz", "VizWiz"),
    Member("scienceqa", "scienceqa", "SQA-I"),
    Member("textvqa", "textvqa", "TextVQA"),
    Member("pope", "pope", "POPE"),
    Member("mme", "mme", "MME", 1.0),
    Member("mmbench", "mmbench", "MMBench"),
    Member("mmbench_cn", "mmbench_cn", "MMBench-CN"),
    Member("llava_bench", OPEN, "LLaVA-W", 1.0),
)
# ICONS has the same ten, as COINCIDE before it
SUITES = {"llava10": LLAVA10, "icons": LLAVA10}


def members_of(suite: str) -> tuple[Member, ...]:
    """Return a suite's benchmarks, in the order of papers' tables.

    Raises:
        InputError: there is no such suite.
    """
    if suite not in SUITES:
        raise InputError(f"unknown suite {suite!r}{suggest(suite, SUITES)}")
    return SUITES[suite]


def split_there(suite: str, root: str, allow_missing: bool) -> tuple[list[Member], list[Member]]:
    """Return the members whose folders are in `root`, and those that lack one.

    Raises:
        InputError: a folder is missing and none may be, or all are; names them.
    """
    members = members_of(suite)
    there = [m for m in members if exists(join(root, m.folder))]
    missing = [m for m in members if m not in there]
    names = ", ".join(m.folder for m in missing)
    if not there:
        raise InputError(f"{root!r} holds none of the folders of {suite}: {names}.")
    if missing and not allow_missing:
        raise InputError(
            f"{root!r} lacks {len(missing)} of the {len(members)} folders of {suite}: {names}. Put them there, or leave "
            "those benchmarks out (--allow-missing): then no average is that of the papers."
        )
    return there, missing
