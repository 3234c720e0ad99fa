"""LLaVA-Bench-in-the-Wild as questions to ask: its released folder, read as the judge reads it, and asked as it stands."""

from collections.abc import Iterator
from typing import Any

from ...pool.records import Record
from ...store.errors import InputError
from ..benchmark import Benchmark, Files
from ..config import OPEN
from ..official_rows import need, question
from .questions import CONTEXTS, QUESTIONS, REFERENCES, read_questions


class OpenBench(Benchmark):
    """Nothing is scored here: `open_answers.py` answers, `judging/run.py` scores."""

    name, tokens = OPEN, 1024
    files = f"{QUESTIONS}, {REFERENCES}, {CONTEXTS}"

    def score(self, answer: str, record: Record) -> float:
        """Refuse to: a judge does."""
        raise InputError(f"{OPEN} answers have no scores until `vinnow judge` has read them.")

    def records(self, files: Files) -> Iterator[dict[str, Any]]:
        """Yield the questions with category and reference.

        Raises: as `read_questions`; what the judge could not take is not asked.
        """
        need(files.folder, *self.files.split(", "))
        for q in read_questions(files.folder):
            kept = {"question_id": q.question_id, "category": q.category, "task": q.category, "source": "llava_bench"}
            yield question(q.text, q.reference, q.image, id=q.question_id, **kept)
