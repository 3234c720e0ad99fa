"""What a benchmark is: how a record is asked, and how its answer is scored. Each is one file in `benchmarks/`.

Prompt suffixes and parsers are LLaVA's (spec: LLaVA §7). Only the first question of a record is asked; its
first answer is the reference. A benchmark that has official files reads them too (`records`), and gives the figures that
papers give (`aggregate`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from ..pool.records import Record
from ..pool.refusals import RefusedError
from ..store.errors import InputError
from .metrics import count_options, exact_match

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class Files:
    """Where official files lie: `folder` has questions and answers, `images` the pictures.

    `spare`: a folder for pictures that lie inside of files.
    """

    folder: str
    images: str
    spare: str


@dataclass(frozen=True)
class Answered:
    """A question of an evaluation; the answer is "" and the score 0 where it could not be asked."""

    record: Record
    answer: str
    score: float


@dataclass(frozen=True)
class Metrics:
    """Official figures: `headline` names the one that papers give, `value` is it; `parts` are what it is made of.

    `value` is None where the answers are hidden: then no score is claimed. `notes`: what a reader must be told.
    """

    headline: str
    value: float | None
    parts: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Benchmark(ABC):
    """A file in `benchmarks/` that ends in `BENCHMARK = ItsClass`; it is made without arguments.

    `suffix` is put behind the question unless it ends so. `example`: a record that it can ask, where it asks neither yes or
    no, nor lettered options, nor a plain question; the contract suite takes it.

    With official files: `files` names those that `records` reads ("" without any), `pictures` the folders in which pictures
    lie beside them, `inside` says that they lie in the files, `tokens` is the longest answer of the official script, and
    `left_out` the reasons for which rows are left out by rule, not by mistake.
    """

    name: ClassVar[str]
    suffix: ClassVar[str] = ""
    example: ClassVar[Record | None] = None
    files: ClassVar[str] = ""
    pictures: ClassVar[tuple[str, ...]] = ("images",)
    inside: ClassVar[bool] = False
    tokens: ClassVar[int] = 128
    left_out: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def score(self, answer: str, record: Record) -> float:
        """Return 0 to 1 for an answer to the record's first question; 1 is correct. Any text is an answer, "" too."""

    def check(self, record: Record) -> None:
        """Return if the record can be asked and scored; rows that cannot are refused before anything is generated.

        Raises:
            InputError: why not; its `reason`, if it has one (`pool/refusals.py`), is what REFUSED says.
        """
        self.score("", record)

    def ask(self, record: Record) -> Record:
        """Return the record as it is asked: its first question alone, with the suffix."""
        question, answer = record.conversations[:2]
        text = question["value"]
        if self.suffix and not text.endswith(self.suffix):
            text += self.suffix
        return replace(record, conversations=[question | {"value": text}, answer])

    def records(self, files: Files) -> Iterator[dict[str, Any] | RefusedError]:
        """Yield the questions of the official files as LLaVA's records; a `RefusedError` stands for a row that is none.

        Raises:
            InputError: a file is missing or not what it should be, or the benchmark has none.
        """
        raise InputError(f"benchmark {self.name!r} has no official files: ingest a test pool, and name it (--pool).")

    def aggregate(self, rows: Sequence[Answered]) -> Metrics:
        """Return the official figures of all questions of an evaluation (at least one)."""
        return Metrics("accuracy", sum(r.score == 1 for r in rows) / len(rows))

    def submit(self, rows: Sequence[Answered], files: Files, out: str) -> str | None:
        """Write the file that the benchmark's server takes into `out` and return its path; None where there is none."""
        return None


def reference(record: Record) -> str:
    """Return the answer that is scored against."""
    return record.conversations[1]["value"]


def count_note(what: str, which: Iterable[bool]) -> list[str]:
    """Return a note of how many, for `Metrics`; of nothing there is none."""
    count = sum(which)
    return [f"{count:,} {what}"] if count else []


def fair_score(benchmark: Benchmark, answer: str, record: Record) -> float:
    """Return the score of an answer.

    Raises:
        InputError: it is no number from 0 to 1 (NaN is none), or the benchmark failed; names it and the sample.
    """
    where = f"benchmark {benchmark.name!r}, sample {record.sample_id}, answer {answer!r:.60}"
    try:
        score = float(benchmark.score(answer, record))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        what = f"{where}: its score failed ({type(error).__name__}: {error}). Any text is an answer, the empty one too."
        raise InputError(what) from error
    if not 0 <= score <= 1:
        raise InputError(f"{where}: scored {score}. A score is a number from 0 to 1; 1 alone is correct.")
    return score


class SameAnswer(Benchmark):
    """Correct is what equals the reference, but for case, outer space and a full stop at the end."""

    def score(self, answer: str, record: Record) -> float:
        """Return 1 or 0."""
        return float(exact_match(answer, reference(record)))


class OptionLetter(Benchmark):
    """Correct is the letter of the right option; `read` finds the letter in an answer, among so many choices."""

    suffix = LETTER
    read: ClassVar[Callable[[str, int], str | None]]

    def score(self, answer: str, record: Record) -> float:
        """Return 1 or 0."""
        return float(type(self).read(answer, count_choices(record)) == reference(record).strip())

    def check(self, record: Record) -> None:
        """Refuse a record without options, or whose reference is none of their letters: nothing could be right."""
        try:
            letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: count_choices(record)]
        except InputError as error:
            raise RefusedError("unscorable", str(error)) from error
        right = reference(record).strip()
        if len(right) != 1 or right not in letters:
            what = f"{self.name} wants one of the letters {letters} as the record's answer, not {right!r:.60}."
            raise RefusedError("unscorable", what)


def count_choices(record: Record) -> int:
    """Return how many lettered options a record has. Raises: InputError: it has none."""
    choices = record.extra.get("choices")
    return len(choices) if isinstance(choices, list) else count_options(record.conversations[0]["value"])


def unread_letters(rows: Sequence[Answered], read: Callable[[str, int], str | None]) -> list[str]:
    """Return the note of answers in which `read` finds no letter of an option."""
    unread = (bool(r.answer.strip()) and read(r.answer, count_choices(r.record)) is None for r in rows)
    return count_note("answers name no option as the official script reads them, and are wrong", unread)
