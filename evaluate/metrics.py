"""Scoring answers: string rules (spec: LLaVA §7), accuracy by task, the majority baseline."""

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..store.errors import InputError

_OFFICIAL, _LETTERS = re.compile(r"The answer is ([A-Z])."), "ABCDE"
_THE_ANSWER_IS = re.compile(r"The answer is ([A-Z])\.")
_OPTION_LINE = re.compile(r"^\(?([A-Z])[.)] ", re.MULTILINE)


def normalise(text: str) -> str:
    """Return the text without outer space, case and a trailing full stop: " Yes." is "yes"."""
    return text.strip().removesuffix(".").strip().lower()


def exact_match(answer: str, reference: str) -> bool:
    """Say whether two answers are the same after `normalise`."""
    return normalise(answer) == normalise(reference)


def yes_or_no(answer: str) -> str:
    """Read an answer as POPE does: "no" if `No`, `no` or `not` is in its first sentence, else "yes"."""
    words = answer.split(".", 1)[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def scienceqa_letter(answer: str, choices: int) -> str | None:
    """Read the letter of a chosen option just as LLaVA's ScienceQA script does; None is wrong whatever is right.

    In order: exactly one of A to E; one of them followed by ". "; exactly one "The answer is X", with any character behind
    it. So "B.", "(B)" and "b" fail, and "The answer is Berlin." is a B. Only what was read is held to the problem's
    `choices`: "E. The answer is B." of two choices is read as E, and so is wrong. Source: `eval_science_qa.py`.
    """
    if answer and answer in list(_LETTERS):
        read = answer
    elif len(answer) >= 3 and answer[0] in _LETTERS and answer[1:3] == ". ":
        read = answer[0]
    else:
        letters = _OFFICIAL.findall(answer)
        read = letters[0] if len(letters) == 1 else ""
    return read if read and read in _LETTERS[:choices] else None


def option_letter(answer: str, choices: int) -> str | None:
    """Read the letter of a chosen option, stricter than LLaVA's script (`scienceqa_letter`); None is a failed parse.

    In order: exactly a letter; a letter followed by ". "; exactly one "The answer is X." with its full stop. Letters beyond
    the problem's `choices` are no letters, and a problem may have up to 26.
    """
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:choices]
    if len(answer) == 1 and answer in letters:
        return answer
    if len(answer) >= 3 and answer[0] in letters and answer[1:3] == ". ":
        return answer[0]
    named = _THE_ANSWER_IS.findall(answer)
    return named[0] if len(named) == 1 and named[0] in letters else None


def count_options(question: str) -> int:
    """Return how many lettered option lines ("A. …" or "(A) …") a question has; they must run A, B, C, ….

    Raises:
        InputError: it has none, or they skip a letter.
    """
    letters = "".join(_OPTION_LINE.findall(question))
    if not letters or letters != "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(letters)]:
        raise InputError(f"no option lines A., B., … in the question {question!r:.120} (found {letters!r}).")
    return len(letters)


@dataclass(frozen=True)
class Accuracy:
    """`overall` counts every row once; `by_task` and `rows_by_task` are keyed by task, in order of name."""

    overall: float
    by_task: dict[str, float]
    rows_by_task: dict[str, int]

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(self.rows_by_task.values())


def accuracy(evals: pa.Table) -> Accuracy:
    """Return the share of correct rows of an EVALS table, overall and by task.

    Raises:
        InputError: the table is empty.
    """
    if not evals.num_rows:
        raise InputError("no answers to score: the EVALS table is empty.")
    groups = evals.group_by("task").aggregate([("correct", "sum"), ("correct", "count")]).sort_by("task")
    rows = groups.to_pylist()
    by_task = {r["task"]: r["correct_sum"] / r["correct_count"] for r in rows}
    counts = {r["task"]: r["correct_count"] for r in rows}
    return Accuracy(float(pc.mean(evals["correct"]).as_py()), by_task, counts)


@dataclass(frozen=True)
class Majority:
    """What always giving each task's commonest answer scores, and which answers those are."""

    overall: float
    by_task: dict[str, float]
    answers: dict[str, str]


def majority_baseline(evals: pa.Table) -> Majority:
    """Return the score of always answering the commonest reference of each task of an EVALS table.

    The commonest answer is taken from the test references themselves: the strongest form of this baseline.
    Ties go to the first by name.

    Raises:
        InputError: the table is empty.
    """
    if not evals.num_rows:
        raise InputError("no references to count: the EVALS table is empty.")
    table = pa.table(
        {
            "task": evals["task"],
            "reference": pa.array([normalise(r) for r in evals["reference"].to_pylist()], pa.string()),
        }
    )
    counts = table.group_by(["task", "reference"]).aggregate([([], "count_all")])
    ranked = counts.sort_by([("task", "ascending"), ("count_all", "descending"), ("reference", "ascending")])
    tasks = np.array(ranked["task"].to_pylist(), object)
    row_counts = ranked["count_all"].to_numpy()
    references = ranked["reference"].to_pylist()
    first = np.flatnonzero(np.r_[True, tasks[1:] != tasks[:-1]])
    totals = np.add.reduceat(row_counts, first)
    by_task = {str(tasks[i]): float(row_counts[i] / n) for i, n in zip(first, totals, strict=True)}
    answers = {str(tasks[i]): references[i] for i in first}
    return Majority(float(row_counts[first].sum() / totals.sum()), by_task, answers)
