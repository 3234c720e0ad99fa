"""VizWiz: blind people's pictures and questions; "unanswerable" is an answer, and the prompt says so.

Source: `convert_vizwiz_for_submission.py` of LLaVA; the server takes an answer to each picture of the test set.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from ...pool.records import Record
from ...pool.refusals import RefusedError
from ...store.errors import InputError
from ...store.files import join, write_json
from ..benchmark import SHORT, Answered, Files
from ..official_rows import HIDDEN, Ids, Row, each, first_there, lines, question, text_of
from ..vqa import TenAnswers, commonest, evalai, people_of

UNANSWERABLE = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."


class VizWiz(TenAnswers):
    """A word or phrase; `val.json` has people's answers, in `llava_test.jsonl` and `test.json` they are hidden."""

    name, suffix = "vizwiz", UNANSWERABLE + SHORT
    files = "llava_test.jsonl, test.json or val.json"
    pictures = ("test", "val", "images")
    example = Record(
        0,
        "vizwiz",
        "vizwiz",
        (),
        [{"from": "human", "value": "What is this?"}, {"from": "gpt", "value": "unanswerable"}],
        {"answers": ["unanswerable"] * 10},
    )

    def records(self, files: Files) -> Iterator[dict[str, Any] | RefusedError]:
        """Yield the questions of the one file that is there; see `Benchmark.records`."""
        path, ids = _one(files.folder), Ids()

        def make(row: Row) -> Row:
            image, text = text_of(row, "image"), text_of(row, "text" if "text" in row else "question")
            kept = {"id": image, "question_id": row.get("question_id", image), "source": "vizwiz", "task": "vizwiz"}
            ids.new(f"{kept['question_id']} on {image}")
            if "answers" not in row:
                return question(text, HIDDEN, image, **kept, hidden=True)
            people = people_of(row["answers"])
            return question(text, commonest(people), image, **kept, answers=people)

        yield from each(path, lines(path), make)

    def submit(self, rows: Sequence[Answered], files: Files, out: str) -> str | None:
        """Write an answer to each picture of the file, "" where none was given; see `Benchmark.submit`."""
        if not rows[0].record.extra.get("hidden"):
            return None
        answers = {(r.record.extra["id"], str(r.record.extra["question_id"])): evalai(r.answer) for r in rows}
        listed = [row for row in lines(_one(files.folder)) if isinstance(row, dict) and "image" in row]
        keys = [(row["image"], str(row.get("question_id", row["image"]))) for row in listed]
        path = join(out, "submission.json")
        write_json(path, [{"image": key[0], "answer": answers.get(key, "")} for key in keys])
        return path


def _one(folder: str) -> str:
    names = ("llava_test.jsonl", "test.json", "val.json")
    there = [p for n in names if (p := first_there(folder, n))]
    if len(there) != 1:
        raise InputError(f"{folder!r} should hold one of {', '.join(names)}; it holds {len(there)} of them.")
    return there[0]


BENCHMARK = VizWiz
