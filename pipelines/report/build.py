"""One HTML file that holds everything: style, charts, what draws them, pictures. It loads nothing, and is forbidden to."""

import base64
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...store.files import join as join_path
from ...store.files import write_bytes
from .answer import answers, sentence
from .data import ReportData
from .headline import Row, headline
from .markup import render
from .overview import overview
from .sections import SECTIONS, absent

NAME = "report.html"
HERE = Path(__file__).parent
# in this order: each uses what those before it offer
EXPLORER = ("choose", "gallery", "record", "map")
# a second lock besides escaping: even injected markup could not fetch anything, nor run what is not ours to the letter
POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {}; "
    "base-uri 'none'; form-action 'none'"
)


def build_report(run_dir: str, data: ReportData, rows: list[Row] | None = None) -> str:
    """Write `RUN/report.html` and return its path. `rows`: the headline, where it is worked out already.

    Raises:
        InputError: two trials answered different test samples.
    """
    path = join_path(run_dir, NAME)
    write_bytes(path, page(data, rows).encode())
    return path


def page(data: ReportData, rows: list[Row] | None = None) -> str:
    """Return the whole page."""
    rows = headline(data.trials) if rows is None else rows
    if rows and not data.answer:
        data = replace(data, answer=[sentence(answers(rows, data))])
    shown = [(name, title, show(data, rows)) for name, title, show, _ in SECTIONS]
    sections = [(name, title, render(name, **values)) for name, title, values in shown if values is not None]
    if missing := [name for name, _, values in shown if values is None]:
        sections.append(("absent", "Not in this report", render("absent", missing=absent(data, missing))))
    return document(
        data.title, render("report", title=data.title, facts=data.facts, sections=sections, **overview(data, rows))
    )


def document(title: str, body: Markup) -> str:
    """Return a page of its own, with the report's style inside, and with Plotly where the body has a chart."""
    texts: list[str] = []
    if "<table" in body:
        texts.append(_own("page.js"))
    if 'id="explorer-data"' in body:
        texts += [_own(f"explorer/{name}.js") for name in EXPLORER]
    if 'class="chart"' in body:
        # the whole library, 4.8 MB: the package has no smaller one (its basic bundle would be 1.2)
        from plotly.offline import get_plotlyjs

        texts += [get_plotlyjs(), _own("draw.js")]
    scripts = [Markup(text) for text in texts]
    style = Markup(_own("report.css"))
    values: dict[str, Any] = {"policy": _policy(scripts), "scripts": scripts, "style": style}
    return render("document", title=title, body=body, **values)


def _own(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _policy(scripts: list[Markup]) -> str:
    digests = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    return POLICY.format(" ".join(f"'sha256-{d}'" for d in digests) or "'none'")
