"""VQAv2: LLaVA's test-dev questions, whose answers only the server knows, or the official validation set with its answers.

Source: `convert_vqav2_for_submission.py` of LLaVA; the server takes an answer to each question of test2015, "" where a
question was not asked.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from ...pool.records import Record
from ...pool.refusals import RefusedError
from ...store.errors import InputError
from ...store.files import join, write_json
from ..benchmark import SHORT, Answered, Files
from ..official_rows import HIDDEN, Ids, Row, each, first_there, lines, need, question, sound, text_of, whole
from ..vqa import TenAnswers, commonest, evalai, people_of

_DEV, _TEST = (f"llava_vqav2_mscoco_{split}.jsonl" for split in ("test-dev2015", "test2015"))
_ASKED, _ANSWERS = "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"


class VQAv2(TenAnswers):
    """A word or phrase; the validation set where its questions are in the folder, else test-dev."""

    name = "vqav2"
    files = f"{_DEV} and {_TEST}, or {_ASKED} and {_ANSWERS}"
    pictures = ("test2015", "val2014", "images")
    example = Record(
        0,
        "vqav2",
        "vqav2",
        (),
        [{"from": "human", "value": f"What animal is it?{SHORT}"}, {"from": "gpt", "value": "cat"}],
        {"answers": ["cat"] * 10},
    )

    def records(self, files: Files) -> Iterator[dict[str, Any] | RefusedError]:
        """Yield the questions of one of the two sets; see `Benchmark.records`."""
        if first_there(files.folder, _ASKED, _ANSWERS) is None:
            yield from _test(files.folder)
        elif first_there(files.folder, _DEV, _TEST) is not None:
            raise InputError(f"{files.folder!r} holds VQAv2's validation set and its test set: give a folder with one.")
        else:
            yield from _validation(files.folder)

    def submit(self, rows: Sequence[Answered], files: Files, out: str) -> str | None:
        """Write an answer to each question of test2015, of test-dev to those asked; see `Benchmark.submit`."""
        if not rows[0].record.extra.get("hidden"):
            return None
        answers = {str(r.record.extra["question_id"]): evalai(r.answer) for r in rows}
        listed = need(files.folder, _TEST)[0]
        ids = [row["question_id"] for row in lines(listed) if isinstance(row, dict) and "question_id" in row]
        path = join(out, "submission.json")
        write_json(path, [{"question_id": i, "answer": answers.get(str(i), "")} for i in ids])
        return path


def _test(folder: str) -> Iterator[dict[str, Any] | RefusedError]:
    path, ids = need(folder, _DEV, _TEST)[0], Ids()

    def make(row: Row) -> Row:
        kept = {"id": ids.new(text_of(row, "question_id")), "question_id": row["question_id"], "hidden": True}
        return question(text_of(row, "text"), HIDDEN, text_of(row, "image"), **kept, source="vqav2", task="test-dev")

    yield from each(path, lines(path), make)


def _validation(folder: str) -> Iterator[dict[str, Any] | RefusedError]:
    path, annotated = need(folder, _ASKED, _ANSWERS)
    rows = whole(annotated, dict).get("annotations")
    people: dict[str, list[Row]] = {}
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict):
            people.setdefault(str(row.get("question_id")), []).append(row)
    ids = Ids()

    def make(row: Row) -> Row:
        number = ids.new(text_of(row, "question_id"))
        said, *more = people.get(number) or [{}]
        if more:
            raise RefusedError("duplicate", f"{annotated!r} answers question {number} {len(more) + 1} times")
        answers = people_of(sound(said).get("answers"))
        image = f"COCO_val2014_{text_of(row, 'image_id').zfill(12)}.jpg"
        kept = {"id": number, "question_id": row["question_id"], "answers": answers, "source": "vqav2"}
        kept["task"] = str(said.get("answer_type") or "vqav2")
        return question(text_of(row, "question"), commonest(answers), image, **kept)

    asked = whole(path, dict).get("questions")
    yield from each(path, asked if isinstance(asked, list) else [], make)


BENCHMARK = VQAv2
