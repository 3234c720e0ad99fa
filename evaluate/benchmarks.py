"""How a record is asked and how its answer is scored. A new benchmark is one entry in `BENCHMARKS`.

Prompt suffixes and parsers are LLaVA's (spec: LLaVA §7). Only the first question of a record is asked; its
first answer is the reference.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ..pool.records import Record
from .metrics import count_options, exact_match, normalise, option_letter, scienceqa_letter, yes_or_no

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class Benchmark:
    """`suffix` is put behind the question unless it ends so; `score(answer, record)` is 0…1, 1 is correct."""

    name: str
    score: Callable[[str, Record], float]
    suffix: str = ""

    def ask(self, record: Record) -> Record:
        """Return the record as it is asked: its first question alone, with the suffix."""
        question, answer = record.conversations[:2]
        text = question["value"]
        if self.suffix and not text.endswith(self.suffix):
            text += self.suffix
        return replace(record, conversations=[question | {"value": text}, answer])


def reference(record: Record) -> str:
    """Return the answer that is scored against."""
    return record.conversations[1]["value"]


def _same(answer: str, record: Record) -> float:
    return float(exact_match(answer, reference(record)))


def _yes_no(answer: str, record: Record) -> float:
    return float(yes_or_no(answer) == normalise(reference(record)))


def _letter(read: Callable[[str, int], str | None], answer: str, record: Record) -> float:
    choices = record.extra.get("choices")
    n = len(choices) if isinstance(choices, list) else count_options(record.conversations[0]["value"])
    return float(read(answer, n) == reference(record).strip())


BENCHMARKS = {
    b.name: b
    for b in (
        Benchmark("exact_match", _same),
        Benchmark("short_answer", _same, SHORT),
        Benchmark("yes_no", _yes_no, SHORT),
        Benchmark("scienceqa", partial(_letter, scienceqa_letter), LETTER),
        Benchmark("option_letter", partial(_letter, option_letter), LETTER),
    )
}
