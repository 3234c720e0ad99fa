"""LLaVA-Bench-in-the-Wild as it is released: `questions.jsonl`, `answers_gpt4.jsonl`, `context.jsonl`, and answers to it.

Rows are joined by `question_id` and by the picture's name, never by their order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...store.errors import DuplicateRowsError, InputError, MissingRowsError
from ...store.files import exists, join, read_bytes
from ...store.reading import parse_json, reading, shown, with_fields

QUESTIONS, REFERENCES, CONTEXTS = "questions.jsonl", "answers_gpt4.jsonl", "context.jsonl"
_ID = int | str


@dataclass(frozen=True)
class OpenQuestion:
    """A question without one right answer; `context` tells a judge who sees no pictures what this one shows."""

    question_id: str
    image: str
    text: str
    category: str
    context: str
    reference: str


def read_questions(folder: str) -> list[OpenQuestion]:
    """Return the questions of a folder, in its order.

    Raises:
        InputError: a file is not there or no JSON lines; a field is missing. MissingRowsError: a question has no reference
            or its picture no context. DuplicateRowsError: an id or picture is there twice.
    """
    kinds = {"question_id": _ID, "image": str, "text": str, "category": str}
    asked = _keyed(join(folder, QUESTIONS), "question_id", kinds)
    references = _keyed(join(folder, REFERENCES), "question_id", {"question_id": _ID, "text": str})
    contexts = _keyed(join(folder, CONTEXTS), "image", {"image": str, "caption": str | list[str]})
    if not asked:
        raise InputError(f"{join(folder, QUESTIONS)!r} holds no question.")
    _refuse_lacking(asked, references, "question", join(folder, REFERENCES))
    _refuse_lacking({q["image"] for q in asked.values()}, contexts, "picture", join(folder, CONTEXTS))
    return [
        OpenQuestion(
            name, q["image"], q["text"], q["category"], _joined(contexts[q["image"]]), references[name]["text"]
        )
        for name, q in asked.items()
    ]


def read_answers(path: str, known: Mapping[str, Any]) -> dict[str, str]:
    """Return a model's answers by question, of JSON lines with `question_id` and `text`, as LLaVA's scripts write them.

    Raises:
        InputError: no such file or lines, or an answer to a question that is not `known`. DuplicateRowsError: two to one.
    """
    rows = _keyed(path, "question_id", {"question_id": _ID, "text": str})
    if stray := [name for name in rows if name not in known]:
        raise InputError(
            f"{path!r}: {len(stray)} of {len(rows)} answers are to no question of this benchmark, first {shown(stray[0])}."
        )
    return {name: row["text"] for name, row in rows.items()}


def _keyed(path: str, key: str, kinds: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the objects of JSON lines by the text of one field."""
    if not exists(path):
        raise InputError(f"there is no {path!r}.")
    with reading(path, "lines of JSON"):
        lines = read_bytes(path).decode("utf-8-sig").split("\n")
    rows: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row = with_fields(parse_json(line, where, once=True), kinds, where, "row of this file")
        if str(row[key]) in rows:
            raise DuplicateRowsError(f"{where}: {key} {row[key]!r} is there twice.")
        rows[str(row[key])] = row
    return rows


def _refuse_lacking(wanted: Any, rows: Mapping[str, Any], what: str, path: str) -> None:
    if lacking := [name for name in wanted if name not in rows]:
        raise MissingRowsError(f"{path!r}: {len(lacking)} {what}s have no row there, first {sorted(lacking)[0]!r}.")


def _joined(row: dict[str, Any]) -> str:
    return row["caption"] if isinstance(row["caption"], str) else "\n".join(row["caption"])
