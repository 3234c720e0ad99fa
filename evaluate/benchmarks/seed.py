"""SEED-Bench: lettered options on pictures, by type of question; the questions on videos are left out, and counted.

Source: `convert_seed_for_submission.py` of LLaVA: an answer is right if it is the letter, and nothing else.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from ...pool.refusals import RefusedError
from ...store.errors import InputError
from ..benchmark import Answered, Files, Metrics, OptionLetter, unread_letters
from ..official_rows import Ids, Row, each, need, question, sound, text_of, whole

LETTERS = "ABCD"


def the_letter(answer: str, choices: int) -> str | None:
    """Return an answer that is a letter of the options and nothing else."""
    return answer if answer and answer in list(LETTERS[:choices]) else None


class Seed(OptionLetter):
    """Of its questions those on pictures."""

    name, read = "seed", the_letter
    files = "SEED-Bench.json"
    pictures = ("SEED-Bench-image", "images")
    left_out = frozenset({"unsupported_media"})

    def records(self, files: Files) -> Iterator[dict[str, Any] | RefusedError]:
        """Yield the questions on pictures, a refusal for each on a video; see `Benchmark.records`."""
        (path,) = need(files.folder, self.files)
        data, ids = whole(path, dict), Ids()
        rows, types = data.get("questions"), data.get("question_type")
        if not isinstance(rows, list) or not isinstance(types, dict):
            raise InputError(f"{path!r} should hold `questions` and `question_type`.")
        names = {number: name for name, number in sound(types, f"{path}, question_type").items()}

        def make(row: Row) -> Row:
            if row.get("data_type") != "image":
                raise RefusedError("unsupported_media", f"it is on a {row.get('data_type')!r:.40}")
            options = [text_of(row, f"choice_{letter.lower()}") for letter in LETTERS]
            listed = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=True))
            task = str(names.get(row.get("question_type_id"), row.get("question_type_id")))
            kept = {"question_id": row.get("question_id"), "choices": options, "source": "seed", "task": task}
            number, image = ids.new(text_of(row, "question_id")), text_of(row, "data_id")
            return question(f"{text_of(row, 'question')}\n{listed}", text_of(row, "answer"), image, id=number, **kept)

        yield from each(path, rows, make)

    def aggregate(self, rows: Sequence[Answered]) -> Metrics:
        """Return the accuracy of all questions, and by type."""
        types: dict[str, list[float]] = {}
        for row in rows:
            types.setdefault(row.record.task, []).append(row.score)
        parts = {name: sum(scores) / len(scores) for name, scores in sorted(types.items())}
        return Metrics(
            "image accuracy", sum(r.score for r in rows) / len(rows), parts, unread_letters(rows, the_letter)
        )


BENCHMARK = Seed
