"""`vinnow evaluate --suite`: all benchmarks of a suite from their official files, one folder each, and one table."""

import os
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from ..evaluate.official import Prepared, prepare, submit
from ..evaluate.suite_run import carry_out_all, make_job
from ..evaluate.suite_table import SUMMARY, Figure, SuiteReport, figure_of, hold_against, refuse_others
from ..evaluate.suites import Member, members_of, split_there
from ..pool.reader import Pool
from ..store.claim import claim
from ..store.errors import InputError
from ..store.files import join, write_json
from ..store.usage import MAX_REFUSED
from .progress import bar, plain
from .remote import Asked, run_remote

# of one benchmark each
_OWN = ("benchmark", "pool", "image_root")


@dataclass(frozen=True)
class SuiteAsked:
    """A suite, the folder of its benchmarks' folders, and another model's suite to hold its figures against.

    Of a checkpoint: its `digest`, and `here` for one actor in this process, without Ray.
    """

    suite: str
    root: str
    out: str
    allow_missing: bool = False
    reference: str | None = None
    digest: str = ""
    here: bool = False


def evaluate_suite(wanted: SuiteAsked, values: dict[str, Any], asked: Asked | None = None) -> SuiteReport:
    """Ask what is not asked yet of a suite, write `OUT/suite.json` and return what it says.

    `values`: fields of an evaluation that hold for all (a checkpoint's with `model` and `run`). `asked`: an endpoint
    answers.

    Raises:
        InputError: no such suite, a folder is missing, files that are not what they should be, a field that is one
            benchmark's own, or the reference was asked other questions; or as `carry_out_all`.
    """
    if own := [n for n in _OWN if n in values]:
        raise InputError(f"--set {', '.join(own)}: with --suite each benchmark has its own.")
    root, out = (p if "://" in p else os.path.abspath(p) for p in (wanted.root, wanted.out))
    there, missing = split_there(wanted.suite, root, wanted.allow_missing)
    most = values.get("max_refused", MAX_REFUSED)
    with claim(out, "evaluate suite", inputs=[root, values.get("model")]):
        ready = {m: prepare(m.benchmark, join(root, m.folder), None, join(out, m.folder), most) for m in there}
        for member, prepared in ready.items() if wanted.reference else ():
            refuse_others(member, Pool(prepared.pool).digest, str(wanted.reference))
        if asked is None:
            _answer_here(ready, values, wanted, out)
        else:
            _answer_remote(ready, values, asked)
        report = SuiteReport(wanted.suite, [], len(there) + len(missing), [m.folder for m in missing])
        for member in members_of(wanted.suite):
            report.figures.append(_row(member, ready.get(member)))
        if wanted.reference is not None:
            hold_against(report, members_of(wanted.suite), os.path.abspath(wanted.reference))
        write_json(join(out, SUMMARY), report.plain())
    return report


def _fields(member: Member, prepared: Prepared, values: dict[str, Any]) -> dict[str, Any]:
    own = {"benchmark": member.benchmark, "pool": prepared.pool}
    return {"max_new_tokens": prepared.benchmark.tokens} | values | own


def _answer_here(ready: dict[Member, Prepared], values: dict[str, Any], wanted: SuiteAsked, out: str) -> None:
    from ..actors.cluster import RayConfig, ensure_ray

    ray = RayConfig.parse(values.get("ray", {}), "ray")
    values = {n: v for n, v in values.items() if n != "ray"}
    jobs = [make_job(m.folder, _fields(m, p, values), p.out, wanted.here, wanted.digest) for m, p in ready.items()]
    with bar("evaluate", "parts") as tell:
        carry_out_all(jobs, out, tell, partial(ensure_ray, ray))


def _answer_remote(ready: dict[Member, Prepared], values: dict[str, Any], asked: Asked) -> None:
    for member, prepared in ready.items():
        run_remote(asked, _fields(member, prepared, values), prepared.out, [])


def _row(member: Member, prepared: Prepared | None) -> Figure:
    if prepared is None:
        return Figure(member.folder, member.title, notes=["its files are missing"])
    figure, submission = figure_of(member, prepared.out), submit(prepared)
    figure.notes += [f"{submission}: for the benchmark's server"] if submission else []
    figure.notes += prepared.lines()
    return figure


def render(report: SuiteReport) -> Group:
    """Return the table for the terminal, and below it what must be known of its figures."""
    names = ["benchmark", "figure", "value", "questions", "refused"]
    table = Table(*names, *["of the reference %"] * (report.reference is not None), title=report.suite)
    for f in report.figures:
        value = "–" if f.value is None else f"{f.value:.1f}"
        cells = [f.title, escape(plain(f.metric)), value, f"{f.questions:,}", f"{f.refused:,}"]
        cells += ["–" if f.relative is None else f"{f.relative:.1f}"] if report.reference is not None else []
        table.add_row(*cells)
    told = [f"{f.title}: {note}" for f in report.figures for note in f.notes]
    if report.missing:
        told.append(f"{len(report.missing)} of {report.members} benchmarks are missing: {', '.join(report.missing)}")
    return Group(table, *(escape(plain(line)) for line in (*told, *_average(report))))


def _average(report: SuiteReport) -> list[str]:
    if report.reference is None:
        return []
    value = "none" if report.average is None else f"{report.average:.1f} %"
    lines = [f"average relative performance {value}, over {report.averaged} of {report.members} benchmarks"]
    if report.without:
        listed = "; ".join(f"{name}: {why}" for name, why in report.without.items())
        lines.append(f"not in the average, which so is no number of the papers: {listed}")
    return lines
