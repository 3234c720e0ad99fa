"""A small LLaVA-Bench-in-the-Wild on disk, in the released layout, and a judge who scores by a rule."""

import json
import re

from endpoint import completion

CATEGORIES = ("conv", "detail", "complex")


def write_lines(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def write_bench(folder, questions=6, pictures=3):
    """Write the three files: question i is of picture i mod `pictures`; return the path of a model's answers."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = range(questions)
    asked = [
        {"question_id": i, "image": f"{i % pictures:03d}.jpg", "text": f"What of {i}?", "category": CATEGORIES[i % 3]}
        for i in rows
    ]
    write_lines(folder / "questions.jsonl", asked)
    write_lines(folder / "answers_gpt4.jsonl", [{"question_id": i, "text": f"reference {i}"} for i in reversed(rows)])
    write_lines(
        folder / "context.jsonl", [{"image": f"{i:03d}.jpg", "caption": f"Picture {i}."} for i in range(pictures)]
    )
    answers = folder / "model.jsonl"
    write_lines(answers, [{"question_id": i, "text": f"model {i}"} for i in rows])
    return answers


def sides(body):
    """Return (Assistant 1's text, Assistant 2's) of a request."""
    text = body["messages"][-1]["content"]
    return tuple(re.search(rf"\[Assistant {n}\]\n(.*?)\n\n\[End", text, re.S)[1] for n in (1, 2))


def judging(score):
    """Answer with `score(text)` of each side, on the first line."""

    def answer(handler, body):
        said = score(*sides(body))
        handler.send(200, json.dumps(completion(said)).encode())

    return answer
