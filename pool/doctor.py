"""The doctor: all of ingest's checks without writing a pool."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from .checks import REASONS, Checked
from .ingest import IngestConfig, examine_rows

EXAMPLES = 3


@dataclass
class DoctorReport:
    """Counts by source and task of the usable rows, refusals by reason with a few examples."""

    rows: int = 0
    refused: int = 0
    text_only: int = 0
    turns: int = 0
    by_source: dict[str, int] = field(default_factory=dict)
    by_task: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def examine(config: IngestConfig, progress: Callable[[int], None] | None = None) -> DoctorReport:
    """Make all of ingest's checks on every row and write nothing; `progress` is called with the rows done.

    Raises:
        InputError: the source cannot be read.
    """
    report = DoctorReport()
    sources, tasks, reasons = Counter[str](), Counter[str](), Counter[str]()
    for at in examine_rows(config):
        found = at.found
        if isinstance(found, Checked):
            report.rows += 1
            report.text_only += not found.images
            report.turns += len(found.conversations)
            sources[found.source] += 1
            tasks[found.task] += 1
        else:
            report.refused += 1
            reasons[found.reason] += 1
            seen = report.examples.setdefault(found.reason, [])
            if len(seen) < EXAMPLES:
                seen.append(f"row {at.row}: {found}")
        if progress and at.row % 256 == 255:
            progress(at.row + 1)
    if progress:
        progress(report.rows + report.refused)
    report.by_source, report.by_task = dict(sources.most_common()), dict(tasks.most_common())
    report.reasons = dict(reasons.most_common())
    return report


def render(report: DoctorReport) -> list[Any]:
    """Return the findings as rich tables."""
    from rich.table import Table

    counts = Table("what", "rows", title="usable")
    counts.add_row("all", f"{report.rows:,}")
    counts.add_row("text-only", f"{report.text_only:,}")
    counts.add_row("turns of all", f"{report.turns:,}")
    for name, n in report.by_source.items():
        counts.add_row(f"source {name}", f"{n:,}")
    for name, n in report.by_task.items():
        counts.add_row(f"task {name}", f"{n:,}")
    wrong = Table("reason", "rows", "meaning", "for example", title="refused")
    for reason, n in report.reasons.items():
        wrong.add_row(reason, f"{n:,}", REASONS[reason], "\n".join(report.examples[reason]))
    return [counts, wrong]
