"""Layouts of Parquet rows → records of `conversations` or `messages`: FineVision's and The Cauldron's `texts`,
ScienceQA's columns, and one question with one answer."""

from collections.abc import Callable
from typing import Any

from ...store.errors import InputError
from ..checks import IMAGE, RefusedError
from .scienceqa import LAYOUTS

TURNS = ("conversations", "messages")
QUESTIONS = ("question", "query", "prompt", "instruction", "problem")
ANSWERS = ("answer", "response", "output", "completion", "caption", "solution")
# with one of these a question has more to it than its own text
_CHOICES = ("choices", "options", "candidates")
_SCIENCEQA = {"question", "choices", "answer", "hint", "lecture", "solution"}
SOURCES = ("source", "data_source", "dataset", "dataset_name", "source_dataset", "data_set")
Row = dict[str, Any]


def layout_of(names: list[str], where: str, layout: str | None) -> Callable[[Row, int], Row | RefusedError]:
    """Return what makes a record of a row and its number of pictures.

    Raises:
        InputError: the columns are in no layout that is known, or could be read in several ways.
    """
    if layout is not None and not set(names) >= _SCIENCEQA:
        raise InputError(f"{where!r} has not ScienceQA's columns, so a layout ({layout}) means nothing in it.")
    if any(n in names for n in TURNS):
        return lambda row, shown: row | {k: listed(row[k]) for k in TURNS if k in row}
    if "texts" in names:
        return _texts
    if set(names) >= _SCIENCEQA:
        return lambda row, shown: _scienceqa(row, shown, layout)
    questions = [n for n in QUESTIONS if n in names]
    answers = [n for n in ANSWERS if n in names]
    if len(questions) != 1 or len(answers) != 1 or any(n in names for n in _CHOICES):
        raise InputError(
            f"{where!r} has no column `conversations` or `messages`; found {names}. Also read: `texts` of "
            f"{{user, assistant}}, ScienceQA's columns, or one question ({', '.join(QUESTIONS)}) with one answer "
            f"({', '.join(ANSWERS)}) and no choices; here are {questions} and {answers}."
        )
    return lambda row, shown: _asked(row, questions[0], answers[0], shown)


def listed(turns: Any) -> Any:
    """Return turns as a list of objects where they are an object of lists (`Sequence` of `datasets`)."""
    if not isinstance(turns, dict) or not turns or not all(isinstance(v, list) for v in turns.values()):
        return turns
    if len({len(v) for v in turns.values()}) != 1:
        return turns  # refused: no list
    return [dict(zip(turns, values, strict=True)) for values in zip(*turns.values(), strict=True)]


def _turns(pairs: list[tuple[str, str]], shown: int) -> list[dict[str, str]]:
    turns = [{"from": r, "value": t} for q, a in pairs for r, t in (("human", q), ("gpt", a))]
    if turns and shown and not any(IMAGE in t["value"] for t in turns[::2]):
        turns[0]["value"] = f"{IMAGE}\n" * shown + turns[0]["value"]
    return turns


def _texts(row: Row, shown: int) -> Row | RefusedError:
    talk = listed(row.pop("texts"))
    pairs = [(t.get("user"), t.get("assistant")) for t in talk if isinstance(t, dict)] if isinstance(talk, list) else []
    if not pairs or len(pairs) < len(talk):
        return RefusedError("no_conversations", "`texts` is no list of {user, assistant}")
    if not all(isinstance(q, str) and isinstance(a, str) for q, a in pairs):
        return RefusedError("bad_turn", "`texts` has a turn whose `user` or `assistant` is no text")
    told = {t["source"] for t in talk if isinstance(t.get("source"), str)}
    if len(told) == 1 and not any(row.get(n) for n in SOURCES):
        row["source"] = told.pop()
    return row | {"conversations": _turns(pairs, shown)}


def _scienceqa(row: Row, shown: int, layout: str | None) -> Row | RefusedError:
    try:
        problem = row | {k: row[k] or "" for k in ("hint", "lecture", "solution")}
        asked, answer = LAYOUTS[layout or "qcm-lea"](problem)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        return RefusedError("no_conversations", f"this problem is not as it should be: {error!r}")
    row = row | {"source": row.get("source") or "scienceqa"}
    # the hub's `task` is always "closed choice"; the subject tells more, as in the official files
    row["task"] = row.get("subject") or row.get("task")
    return row | {"conversations": _turns([(asked, answer)], shown)}


def _asked(row: Row, question: str, answer: str, shown: int) -> Row | RefusedError:
    question_text, answer_text = row.pop(question), row.pop(answer)
    if not isinstance(question_text, str) or not isinstance(answer_text, str):
        return RefusedError("bad_turn", f"`{question}` or `{answer}` is no text: {answer_text!r:.80}")
    return row | {"conversations": _turns([(question_text, answer_text)], shown)}
