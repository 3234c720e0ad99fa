"""ScienceQA's letters, read as LLaVA's own script reads them (`eval_science_qa.py`); the figure is that with a picture.

Its files are read in the layout of LLaVA's shipped test file: the context only where there is a hint, an option a line.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from ...pool.formats.scienceqa import read
from ...pool.formats.source import Source
from ...pool.refusals import RefusedError
from ..benchmark import Answered, Files, Metrics, OptionLetter
from ..metrics import scienceqa_letter
from ..official_rows import Ids, Row, each, need


class ScienceQA(OptionLetter):
    """Comparable with published figures."""

    name, read = "scienceqa", scienceqa_letter
    files = "problems.json, pid_splits.json"
    tokens = 1024

    def records(self, files: Files) -> Iterator[dict[str, Any] | RefusedError]:
        """Yield the test split; see `Benchmark.records`."""
        listed, ids = need(files.folder, *self.files.split(", "))[1], Ids()

        def make(row: Row) -> Row:
            ids.new(row["id"])
            return row

        yield from each(listed, read(Source(files.folder, files.images, "test", "test")), make)

    def aggregate(self, rows: Sequence[Answered]) -> Metrics:
        """Return the accuracy of the questions with a picture, of all, and by subject."""
        right = {"accuracy": [r.score for r in rows]}
        pictured = [r.score for r in rows if r.record.images]
        for row in rows:
            right.setdefault(f"{row.record.task} accuracy", []).append(row.score)
        parts = {name: sum(scores) / len(scores) for name, scores in right.items()}
        if not pictured:
            return Metrics(
                "accuracy", parts["accuracy"], parts, ["no question has a picture: accuracy is that of text"]
            )
        return Metrics("image accuracy", sum(pictured) / len(pictured), parts)


BENCHMARK = ScienceQA
