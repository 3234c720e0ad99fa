"""One HTML file that holds everything: style, charts, pictures. It loads nothing, and is forbidden to."""

from pathlib import Path

from ...store.files import join as join_path
from ...store.files import write_bytes
from .data import ReportData
from .headline import headline
from .markup import Html, facts, tag
from .sections import SECTIONS, absent_section

NAME = "report.html"
# a second lock besides escaping: even injected markup could not fetch or run anything
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def build_report(run_dir: str, data: ReportData) -> str:
    """Write `RUN/report.html` and return its path.

    Raises:
        InputError: two trials answered different test samples.
    """
    path = join_path(run_dir, NAME)
    write_bytes(path, f"<!doctype html>\n{page(data)}\n".encode())
    return path


def page(data: ReportData) -> Html:
    """Return the whole page."""
    rows = headline(data.trials)
    shown = [(name, title, show(data, rows)) for name, title, show, _ in SECTIONS]
    present = [(name, title, inside) for name, title, inside in shown if inside]
    if missing := [name for name, _, inside in shown if not inside]:
        present.append(("absent", "Not in this report", absent_section(data, missing)))
    sections = [tag("section", tag("h2", title), inside, id=name) for name, title, inside in present]
    links = [tag("li", tag("a", title, href=f"#{name}")) for name, title, _ in present]
    header = tag("header", tag("h1", data.title), facts(data.facts) if data.facts else "")
    nav = tag("nav", tag("ul", *links), aria_label="Sections")
    return document(data.title, [header, nav, tag("main", *sections)])


def document(title: str, body: list[Html]) -> Html:
    """Return a page of its own, with the report's style inside."""
    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(style)),
    )
    return tag("html", head, tag("body", *body), lang="en")
