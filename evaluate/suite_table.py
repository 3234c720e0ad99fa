"""A suite's figures as papers print them, and the average relative performance: mean of figure ÷ reference's figure.

Figures are read from the evaluations' own reports; LLaVA-Bench's from `judged` in its folder, which `vinnow judge` makes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

from ..store.errors import InputError
from ..store.facts import read_fields
from ..store.files import exists, join, read_bytes
from .config import OPEN, REPORT
from .judging.relative import ALL
from .judging.run import REPORT as JUDGED
from .open_answers import LINES
from .open_answers import REPORT as OPEN_REPORT
from .suites import Member

JUDGED_IN, SUMMARY = "judged", "suite.json"
_ANEW = "Delete it and run again."


@dataclass
class Figure:
    """A benchmark's row. `value`: as papers print it, None where there is none yet: `notes` say why.

    `relative`: per cent of the reference's. `folder`: where its answers are; "" of one whose files are missing.
    """

    benchmark: str
    title: str
    metric: str = ""
    value: float | None = None
    questions: int = 0
    refused: int = 0
    relative: float | None = None
    notes: list[str] = field(default_factory=list)
    folder: str = ""


@dataclass
class SuiteReport:
    """`average`: the average relative performance over the `averaged` benchmarks, of `members`; None without a reference.

    `missing`: folders that were not there. `without`: those of no relative figure, by reason.
    """

    suite: str
    figures: list[Figure]
    members: int
    missing: list[str] = field(default_factory=list)
    reference: str | None = None
    average: float | None = None
    averaged: int = 0
    without: dict[str, str] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def figure_of(member: Member, folder: str) -> Figure:
    """Return the figure of an evaluation that is done.

    Raises:
        InputError: there is none in the folder, or its report is damaged.
    """
    figure = Figure(member.folder, member.title, folder=folder)
    if member.benchmark == OPEN:
        return _judged(figure, folder, member.scale)
    saved = read_fields(
        join(folder, REPORT), "report of an evaluation", _ANEW, rows=int, refused=int, metrics=dict[str, Any]
    )
    metrics = saved["metrics"]
    figure.metric, value = str(metrics.get("headline")), metrics.get("value")
    figure.value = None if value is None else member.scale * float(value)
    figure.questions, figure.refused, figure.notes = saved["rows"], saved["refused"], list(metrics.get("notes", []))
    return figure


def _judged(figure: Figure, folder: str, scale: float) -> Figure:
    saved = read_fields(join(folder, OPEN_REPORT), "report of open answers", _ANEW, rows=int, refused=int)
    figure.metric, figure.questions, figure.refused = "relative score", saved["rows"], saved["refused"]
    place = join(folder, JUDGED_IN)
    if not exists(join(place, JUDGED)):
        figure.notes = [f"not judged yet: vinnow judge {join(folder, LINES)} … --out {place}"]
        return figure
    told = read_fields(
        join(place, JUDGED), "report of a judgement", _ANEW, key=dict[str, Any], scores=dict[str, Any], failed=int
    )
    if told["key"].get("answers") != sha256(read_bytes(join(folder, LINES))).hexdigest()[:16]:
        figure.notes = [f"{place} judged other answers than these: judge again, into another folder, and put it there"]
        return figure
    figure.value = scale * float(told["scores"][ALL]["relative"])
    judge = told["key"].get("judge")
    figure.notes = [f"judged by {judge}" + (f"; {told['failed']} questions have no scores" if told["failed"] else "")]
    return figure


def hold_against(report: SuiteReport, members: Sequence[Member], reference: str) -> None:
    """Fill in what per cent of a reference's figures these are, and their mean, as papers define it.

    `reference`: the output folder of the same suite of another model (the one trained on all data). What has no figure on
    either side, or one of 0 to be relative to, is in `without`.
    """
    report.reference = reference
    figures = {f.benchmark: f for f in report.figures}
    for member in members:
        figure, place = figures[member.folder], join(reference, member.folder)
        theirs = figure_of(member, place) if figure.folder and exists(join(place, _report(member))) else None
        if why := _no_share(member, figure, theirs):
            report.without[member.folder] = why
        elif theirs is not None and theirs.value and figure.value is not None:
            figure.relative = 100 * figure.value / theirs.value
    shares = [f.relative for f in report.figures if f.relative is not None]
    report.average, report.averaged = (sum(shares) / len(shares) if shares else None), len(shares)


def _no_share(member: Member, figure: Figure, theirs: Figure | None) -> str:
    """Return why there is no figure relative to another; "" where there is one."""
    if not figure.folder:
        return "its files are missing"
    if theirs is None:
        return "the reference has none"
    if lacking := [n for n, f in (("this model", figure), ("the reference", theirs)) if f.value is None]:
        return f"there is no figure of {' and of '.join(lacking)}"
    if member.benchmark == OPEN and (differ := _other_judge(figure.folder, theirs.folder)):
        return f"it was judged otherwise ({differ} differ)"
    return "" if theirs.value and theirs.value > 0 else "the reference's figure is 0"


def _report(member: Member) -> str:
    return OPEN_REPORT if member.benchmark == OPEN else REPORT


def refuse_others(member: Member, pool: str, reference: str) -> None:
    """See that a reference was asked the questions of a pool (its digest), where it was asked this benchmark at all.

    Raises:
        InputError: it was asked others.
    """
    path = join(reference, member.folder, _report(member))
    if (
        exists(path)
        and read_fields(path, "report of an evaluation", _ANEW, key=dict[str, Any])["key"].get("pool") != pool
    ):
        raise InputError(f"{member.folder}: the reference was asked other questions ({path!r}); ask both the same.")


def _other_judge(ours: str, theirs: str) -> str:
    """Return what the two judgements do not share of what figures follow from."""
    places = [join(folder, JUDGED_IN, JUDGED) for folder in (ours, theirs)]
    first, second = (read_fields(p, "report of a judgement", _ANEW, key=dict[str, Any])["key"] for p in places)
    return ", ".join(n for n in sorted((first.keys() | second.keys()) - {"answers"}) if first.get(n) != second.get(n))
