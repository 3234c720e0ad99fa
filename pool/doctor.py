"""The doctor: all of ingest's checks without writing a pool."""

from collections import Counter
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


def examine(config: IngestConfig) -> DoctorReport:
    """Check every row of a source; memory does not grow with it."""
    report = DoctorReport()
    sources, tasks, reasons = Counter[str](), Counter[str](), Counter[str]()
    for row, _, found in examine_rows(config):
        if isinstance(found, Checked):
            report.rows += 1
            report.text_only += found.image is None
            report.turns += len(found.conversations)
            sources[found.source] += 1
            tasks[found.task] += 1
        else:
            report.refused += 1
            reasons[found.reason] += 1
            seen = report.examples.setdefault(found.reason, [])
            if len(seen) < EXAMPLES:
                seen.append(f"row {row}: {found}")
    report.by_source, report.by_task = dict(sources.most_common()), dict(tasks.most_common())
    report.reasons = dict(reasons.most_common())
    return report


def render(report: DoctorReport) -> list[Any]:
    """Return the findings as rich tables."""
    from rich.table import Table

    counts = Table("what", "rows", title="usable")
    counts.add_row("all", f"{report.rows:,}")
    counts.add_row("text-only", f"{report.text_only:,}")
    for name, n in report.by_source.items():
        counts.add_row(f"source {name}", f"{n:,}")
    for name, n in report.by_task.items():
        counts.add_row(f"task {name}", f"{n:,}")
    wrong = Table("reason", "rows", "meaning", "for example", title="refused")
    for reason, n in report.reasons.items():
        wrong.add_row(reason, f"{n:,}", REASONS[reason], "\n".join(report.examples[reason]))
    return [counts, wrong]
