"""Truthful text-only records about colours and shapes: the part of the demo's pool that has no picture."""

import itertools
import random
from typing import Any

COLORS = ("red", "green", "blue", "black", "gray", "teal", "brown", "yellow")
SHAPES = ("circle", "rectangle", "triangle")


def all_questions() -> list[tuple[str, str]]:
    """Return every (question, answer), each question once, in a fixed order."""
    questions = [(f"is {w} a color or a shape?", "color" if w in COLORS else "shape") for w in COLORS + SHAPES]
    for color, shape in itertools.product(COLORS, SHAPES):
        for pair in ((color, shape), (shape, color)):
            questions.append((f"which of these is a shape: {pair[0]}, {pair[1]}?", shape))
            questions.append((f"which of these is a color: {pair[0]}, {pair[1]}?", color))
        scene = f"a picture shows one {color} {shape}."
        questions.append((f"{scene} what color is the {shape}?", color))
        questions.append((f"{scene} what shape is {color}?", shape))
        for other in COLORS:
            questions += _about(scene, f"{other} shape", other == color)
        for other in SHAPES:
            questions += _about(scene, other, other == shape)
    return questions


def _about(scene: str, thing: str, there: bool) -> list[tuple[str, str]]:
    # easy-vqa answers "is there not X?" by whether X is absent; these keep to that reading
    return [
        (f"{scene} is there a {thing}?", "yes" if there else "no"),
        (f"{scene} is there not a {thing}?", "no" if there else "yes"),
    ]


COUNT = len(all_questions())


def records(n: int, rng: random.Random) -> list[dict[str, Any]]:
    """Return `n` records of distinct questions in LLaVA's format (at most COUNT), `task` "text"."""
    chosen = rng.sample(all_questions(), n)
    return [
        {
            "id": f"text-{i}",
            "task": "text",
            "source": "text",
            "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}],
        }
        for i, (question, answer) in enumerate(chosen)
    ]
