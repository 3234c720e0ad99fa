"""The doctor: all of ingest's checks without writing a pool, and what is odd about the rows that pass."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..store.arrays import Array
from .checks import IMAGE, REASONS
from .dedup import Likeness, counted
from .examine import Examined, IngestConfig, check_given_root, examine_rows, settle
from .odd import ODD
from .refusals import FINDINGS, UNFIT, ImageError
from .shown import TRAITS

if TYPE_CHECKING:  # it loads torch, which a look at the data alone needs not
    from .encode import Encoder

EXAMPLES = 3
# mix665k by its pictures' first folder; coco: LLaVA 157,712, VQAv2 82,783, OKVQA 8,998, A-OKVQA 66,160, RefCOCO 48,447
MIX665K = {"coco": 364_100, "gqa": 72_140, "ocr_vqa": 80_000, "textvqa": 21_953, "vg": 86_417, "text": 40_688}
WARNINGS = {
    "mark_in_answer": "an answer holds a literal <image>; it stays text",
    "mark_without_picture": "a question holds <image>, but the record has no picture; it stays text",
    "empty_answer_among": "one answer is empty, others are not; it is not trained",
    "answer_left_out": "the first turn is an answer to nothing; it is left out, as LLaVA's trainer does",
    "system_prompt": "the record has a system prompt of its own; it stands where the template's would",
    **ODD,
    "over_length": "longer than the given limit",
    **FINDINGS,
    "misnamed_image": "the picture's bytes are of another format than its name says",
    **TRAITS,
    "duplicate": "the same picture and turns came before (kept, with an id of its own)",
    "near_duplicate": "pictures (files) that nearly repeat another one",
}


@dataclass
class DoctorReport:
    """Counts by source and task of the usable rows, refusals by reason and warnings by kind, with a few examples.

    `composition` compares all records with mix665k's when they come from its six sources, else None: source →
    records, known, difference. `longest`: characters of the longest record's turns. `unfit`: usable rows that the given
    model would refuse.
    """

    rows: int = 0
    refused: int = 0
    text_only: int = 0
    turns: int = 0
    longest: int = 0
    unfit: int = 0
    by_source: dict[str, int] = field(default_factory=dict)
    by_task: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    warnings: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    composition: dict[str, dict[str, int]] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def note(self, name: str, row: int, what: str) -> None:
        """Keep one of the first examples of a reason or a warning."""
        seen = self.examples.setdefault(name, [])
        if len(seen) < EXAMPLES:
            seen.append(f"row {row}: {what}" if what else f"row {row}")


def examine(
    config: IngestConfig,
    progress: Callable[[int], None] | None = None,
    max_len: int | None = None,
    encoder: "Encoder | None" = None,
) -> DoctorReport:
    """Make all of ingest's checks on every row and write nothing; `progress` is called with the rows done.

    `max_len` warns of longer records: in tokens where the config names a tokenizer, else in words, as LLaVA's own
    sampler counts them. `encoder`: a model's, which each row is put through, with the sizes in the headers of its pictures.

    Raises:
        InputError: the source cannot be read, or the image root that was given is not there.
    """
    check_given_root(config)
    config = settle(config)
    report, likeness = DoctorReport(), Likeness()
    sources, tasks, refused, reasons = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    warnings = Counter[str]()
    for block in examine_rows(config):
        report.rows += block.table.num_rows
        report.refused += len(block.refused)
        report.text_only += int(_textual(block.table).sum())
        report.longest = max(report.longest, pc.max(block.table["n_chars"]).as_py() or 0)
        sources.update(counted(block.table["source"]))
        tasks.update(counted(block.table["task"]))
        likeness.add(block.table)
        for bad in block.refused:
            reasons[bad.reason] += 1
            refused[bad.source] += 1
            report.note(bad.reason, bad.row, bad.detail)
        for name, row, what in _oddities(block, report, max_len):
            warnings[name] += 1
            report.note(name, row, what)
        for name, row, what in _unfit(block, config, encoder) if encoder else ():
            warnings[name] += 1
            report.unfit += name in UNFIT
            report.note(name, row, what)
        if progress:
            progress(block.first + block.rows)
    warnings["near_duplicate"] = likeness.near()
    report.by_source, report.by_task = dict(sources.most_common()), dict(tasks.most_common())
    report.reasons = dict(reasons.most_common())
    report.warnings = {name: n for name, n in warnings.most_common() if n}
    if (sources + refused).keys() - {""} == MIX665K.keys():
        there = {name: sources[name] + refused[name] for name in MIX665K}
        report.composition = {
            name: {"records": there[name], "known": known, "difference": there[name] - known}
            for name, known in MIX665K.items()
        }
    return report


def _oddities(block: Examined, report: DoctorReport, max_len: int | None) -> Iterator[tuple[str, int, str]]:
    """Yield (warning, row, what) of the sound rows, and add up their turns."""
    table = block.table
    turns = table["conversations"].combine_chunks()
    turns = pa.concat_arrays(turns.chunks) if isinstance(turns, pa.ChunkedArray) else turns
    values, size_N = turns.flatten().field("value"), turns.value_lengths().to_numpy()
    report.turns += len(values)
    row_T = np.repeat(block.source_rows, size_N)
    is_answer_T = np.arange(len(values)) % 2 == 1
    has_mark_T = _mask(pc.match_substring(values, IMAGE))
    textual_T = np.repeat(_textual(table), size_N)
    empty_T = _mask(pc.equal(pc.utf8_trim_whitespace(values), ""))
    rows_by_warning = {
        "mark_in_answer": row_T[has_mark_T & is_answer_T],
        "mark_without_picture": row_T[has_mark_T & ~is_answer_T & textual_T],
        "empty_answer_among": row_T[empty_T & is_answer_T],
        "duplicate": block.source_rows[_mask(table["duplicate_of"].is_valid())],
    }
    for name, rows in rows_by_warning.items():
        yield from ((name, int(row), "") for row in np.unique(rows))
    for name, key in (("system_prompt", "system"), ("answer_left_out", "answer_left_out")):
        told_N = _mask(pc.match_substring(table["extra"], f'"{key}": "'))
        yield from ((name, int(row), "") for row in block.source_rows[told_N])
    yield from block.odd
    if max_len is not None and len(values):
        unit, length_N = "tokens", table["n_tokens"].to_numpy()
        if table["n_tokens"].null_count:
            words_T = pc.count_substring_regex(values, r"\S+").to_numpy(zero_copy_only=False)
            unit, length_N = "words", np.add.reduceat(words_T, np.cumsum(size_N) - size_N)
        for n in np.flatnonzero(length_N > max_len):
            yield "over_length", int(block.source_rows[n]), f"{int(length_N[n])} {unit}"


def _unfit(block: Examined, config: IngestConfig, encoder: "Encoder") -> Iterator[tuple[str, int, str]]:
    """Yield (warning, row, what) of the sound rows that a model would refuse, or cut."""
    from .fitting import finding, sizes_of
    from .reader import as_record

    for row, raw in zip(block.source_rows.tolist(), block.table.to_pylist(), strict=True):
        record = as_record(raw, config.source)
        try:
            told = finding(encoder, record, sizes_of(encoder, record, config.image_root))
        except ImageError:  # with check_images: none; the reader will find out
            continue
        if told is not None:
            yield told[0], row, told[1]


def _textual(table: pa.Table) -> Array:
    return _mask(pc.equal(pc.list_value_length(table["images"]), 0))


def _mask(column: Any) -> Array:
    return np.asarray(column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column, bool)


def render(report: DoctorReport) -> list[Any]:
    """Return the findings as rich tables."""
    from rich.markup import escape
    from rich.table import Table

    def shown(text: str) -> str:
        # what data says is text: no markup, no terminal's escapes
        return escape("".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text))

    counts = Table("what", "rows", title="usable")
    counts.add_row("all", f"{report.rows:,}")
    counts.add_row("text-only", f"{report.text_only:,}")
    counts.add_row("turns of all", f"{report.turns:,}")
    counts.add_row("characters of the longest", f"{report.longest:,}")
    for name, n in report.by_source.items():
        counts.add_row(shown(f"source {name}"), f"{n:,}")
    for name, n in report.by_task.items():
        if report.by_source.get(name) != n:  # a record without a task has its source's name
            counts.add_row(shown(f"task {name}"), f"{n:,}")
    tables = [counts]
    if report.composition:
        known = Table("source", "records", "mix665k", "difference", title="beside mix665k")
        for name, row in report.composition.items():
            known.add_row(name, *(f"{row[k]:,}" for k in ("records", "known")), f"{row['difference']:+,}")
        tables.append(known)
    for title, count_of, meanings in (
        ("refused", report.reasons, REASONS),
        ("warnings: these rows are kept", report.warnings, WARNINGS),
    ):
        wrong = Table("reason", "rows", "meaning", "for example", title=title)
        for name, n in count_of.items():
            wrong.add_row(name, f"{n:,}", meanings[name], shown("\n".join(report.examples.get(name, []))))
        tables.append(wrong)
    return tables
