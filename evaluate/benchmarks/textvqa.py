"""TextVQA: questions on the text in a picture, asked with the OCR tokens that LLaVA's question file brings."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ...pool.records import Record
from ...pool.refusals import RefusedError
from ..benchmark import SHORT, Files
from ..official_rows import Row, each, lines, need, question, sound, text_of, whole
from ..vqa import TenAnswers, commonest, people_of

_TOKENS = "Reference OCR token: "


class TextVQA(TenAnswers):
    """The question file asks, the official annotations answer: matched by picture and lower-case question."""

    name = "textvqa"
    files = "llava_textvqa_val_v051_ocr.jsonl, TextVQA_0.5.1_val.json"
    pictures = ("train_images", "images")
    example = Record(
        0,
        "textvqa",
        "textvqa",
        (),
        [{"from": "human", "value": f"what is written?\n{_TOKENS}STOP{SHORT}"}, {"from": "gpt", "value": "stop"}],
        {"answers": ["stop"] * 9 + ["STOP."]},
    )

    def records(self, files: Files) -> Iterator[dict[str, Any] | RefusedError]:
        """Yield the questions of LLaVA's file; see `Benchmark.records`."""
        asked, annotated = need(files.folder, *self.files.split(", "))
        data = whole(annotated, dict).get("data")
        rows = [r for r in data if isinstance(r, dict)] if isinstance(data, list) else []
        answers: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            answers.setdefault((str(row.get("image_id")), str(row.get("question")).lower()), []).append(row)
        asked_before = Counter[tuple[str, str]]()

        def make(row: Row) -> Row:
            image_id, text = text_of(row, "question_id"), text_of(row, "text")
            key = (image_id, asked_of(text).lower())
            if key not in answers:
                raise RefusedError("unscorable", f"{annotated!r} has no question {key[1]!r:.60} on picture {image_id}")
            said = [sound(r) for r in answers[key]]
            if len({str(r.get("question_id")) for r in said}) < len(said):
                raise RefusedError("duplicate", f"{annotated!r} answers {key[1]!r:.60} on picture {image_id} twice")
            # as often as it is answered, under ids of their own; of those answers the official script takes the last
            asked_before[key] += 1
            if asked_before[key] > len(said):
                raise RefusedError("duplicate", f"{key[1]!r:.60} on picture {image_id} is there twice")
            people = people_of(said[-1].get("answers"))
            kept = {"question_id": row["question_id"], "answers": people, "source": "textvqa", "task": "textvqa"}
            return question(text, commonest(people), text_of(row, "image"), id=image_id, **kept)

        yield from each(asked, lines(asked), make)


def asked_of(prompt: str) -> str:
    """Return the question of a prompt with OCR tokens: its first line, or the second one behind the tokens.

    Raises:
        RefusedError: the prompt has neither two nor three lines.
    """
    parts = prompt.split("\n")
    if len(parts) == 3 and _TOKENS in prompt:
        return parts[1] if prompt.startswith(_TOKENS.strip()) else parts[0]
    if len(parts) == 2:
        return parts[0]
    raise RefusedError("unscorable", f"the prompt {prompt!r:.60} is not in LLaVA's layout")


BENCHMARK = TextVQA
