"""GQA: the balanced test-dev questions, 12,578; correct is the very answer, but for case and full stops at the end.

Source: `convert_gqa_for_eval.py` of LLaVA and GQA's own `eval.py`, whose open and binary questions are told apart.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from ...pool.records import Record
from ...pool.refusals import RefusedError
from ..benchmark import SHORT, Answered, Benchmark, Files, Metrics, reference
from ..official_rows import Row, each, need, question, text_of, whole


class GQA(Benchmark):
    """A word or phrase."""

    name, suffix = "gqa", SHORT
    files = "testdev_balanced_questions.json"

    def score(self, answer: str, record: Record) -> float:
        """Return 1 or 0."""
        return float(_plain(answer) == _plain(reference(record)))

    def check(self, record: Record) -> None:
        """Refuse a record without an answer."""
        if not _plain(reference(record)):
            raise RefusedError("unscorable", "gqa wants a word or phrase as the record's answer.")

    def records(self, files: Files) -> Iterator[dict[str, Any] | RefusedError]:
        """Yield the questions in the file's order; see `Benchmark.records`."""
        (path,) = need(files.folder, self.files)
        rows = whole(path, dict)

        def make(row: Row) -> Row:
            kinds = row.get("types")
            structural = kinds.get("structural") if isinstance(kinds, dict) else None
            kept = {"id": row["id"], "question_id": row["id"], "source": "gqa", "task": "gqa", "structural": structural}
            return question(text_of(row, "question"), text_of(row, "answer"), f"{text_of(row, 'imageId')}.jpg", **kept)

        named = (row | {"id": name} if isinstance(row, dict) else row for name, row in rows.items())
        yield from each(path, named, make)

    def aggregate(self, rows: Sequence[Answered]) -> Metrics:
        """Return the accuracy of all questions, of open ones (structural type query) and of the others."""
        parts = dict[str, float]()
        for name, is_open in (("open", True), ("binary", False)):
            kinds = [(r.record.extra.get("structural"), r.score) for r in rows]
            scores = [score for kind, score in kinds if kind is not None and (kind == "query") == is_open]
            if scores:
                parts[name] = sum(scores) / len(scores)
        return Metrics("accuracy", sum(r.score for r in rows) / len(rows), parts)


def _plain(text: str) -> str:
    return text.rstrip(".").lower()


BENCHMARK = GQA
