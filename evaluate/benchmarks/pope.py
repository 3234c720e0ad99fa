"""POPE: is an object in the picture? Three files of 3,000, 3,000 and 2,910 questions; the figure is the mean F1.

Source: `eval_pope.py` of LLaVA, but for two things. A label goes with its own question, where the script pairs labels and
answers by their order; and a share of nothing is 0 and told, where it divides by zero.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ...pool.refusals import RefusedError
from ..benchmark import Answered, Files, Metrics, count_note, reference
from ..metrics import normalise, yes_or_no
from ..official_rows import Ids, Row, each, lines, need, question, text_of
from .yes_no import YesNo

SPLITS = ("adversarial", "popular", "random")


class Pope(YesNo):
    """Yes or no, read as POPE reads it; a question that could not be asked counts as answered wrongly."""

    name = "pope"
    files = ", ".join(f"coco_pope_{s}.json" for s in SPLITS)
    pictures = ("val2014", "images")

    def records(self, files: Files) -> Iterator[dict[str, Any] | RefusedError]:
        """Yield the questions of the three files; see `Benchmark.records`."""
        for split, path in zip(SPLITS, need(files.folder, *self.files.split(", ")), strict=True):
            ids = Ids()

            def make(row: Row, split: str = split, ids: Ids = ids) -> Row:
                label = text_of(row, "label").strip().lower()
                if label not in ("yes", "no"):
                    raise RefusedError("unscorable", f"label is {label!r:.60}, neither yes nor no")
                number = ids.new(text_of(row, "question_id"))
                kept = {"question_id": row["question_id"], "category": split, "source": "pope", "task": split}
                return question(text_of(row, "text"), label, text_of(row, "image"), id=f"{split}/{number}", **kept)

            yield from each(path, lines(path), make)

    def aggregate(self, rows: Sequence[Answered]) -> Metrics:
        """Return accuracy, precision, recall, F1 and share of yes by split, and the mean F1."""
        splits: dict[str, list[Answered]] = {}
        for row in rows:
            splits.setdefault(str(row.record.extra.get("category", "all")), []).append(row)
        parts, notes = {}, []
        for split in sorted(splits):
            figures = _figures(splits[split])
            parts |= {f"{split} {name}": value for name, value in figures.items() if value is not None}
            lacking = [name for name, value in figures.items() if value is None]
            parts |= {f"{split} {name}": 0.0 for name in lacking}
            notes += [f"{split}: {name} is a share of nothing, and counts as 0" for name in lacking]
        unclear = (_says_neither(r) for r in rows)
        notes += count_note("answers say neither yes nor no: the official rule counts them as yes", unclear)
        return Metrics("mean F1", sum(parts[f"{s} F1"] for s in splits) / len(splits), parts, notes)


def _says_neither(row: Answered) -> bool:
    """Say whether an answer is read as yes without that word; an empty one is none unless it was right."""
    said = bool(row.answer.strip()) or row.score == 1
    return said and yes_or_no(row.answer) == "yes" and "yes" not in re.findall(r"\w+", row.answer.lower())


def _figures(rows: Sequence[Answered]) -> dict[str, float | None]:
    """Return a split's figures; None where there is nothing to take a share of."""
    yes = [normalise(reference(r.record)) == "yes" for r in rows]
    right = [r.score == 1 for r in rows]
    # what was answered: the label where it is right, the other word where it is not
    said = [y == r for y, r in zip(yes, right, strict=True)]
    hits = sum(y and s for y, s in zip(yes, said, strict=True))
    precision, recall = (hits / n if n else None for n in (sum(said), sum(yes)))
    both = (precision or 0) + (recall or 0)
    return {
        "accuracy": sum(right) / len(rows),
        "precision": precision,
        "recall": recall,
        "F1": 2 * (precision or 0) * (recall or 0) / both if both else None,
        "yes ratio": sum(said) / len(rows),
    }


BENCHMARK = Pope
