"""Records in ScienceQA's official layout (problems.json, pid_splits.json), with its counts and made-up texts.

For trying selections at full size without the data: 12,726 training records, 3 subjects, 26 topics, 127 categories, 379
skills, grades 1 to 12, 2 to 5 choices, about 48 % with a picture, long tails. The same every time. Sources: spec LLaVA §1.3
for rows and choices; Lu et al. 2022 for topics, categories and skills; shares by subject are about theirs. Texts are made
up; a picture is a few shapes, in colours of its topic.

    python benchmarks/make_scienceqa.py OUT [ROWS]
"""

import json
import random
import sys
from collections.abc import Iterator
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

ROWS, SEED = 12_726, 0
TOPICS = {"natural science": 12, "social science": 6, "language science": 8}
CATEGORIES, SKILLS = 127, 379
# of pictures, by subject: language has few
PICTURED = {"natural science": 0.56, "social science": 0.85, "language science": 0.02}
SHARE = {"natural science": 0.54, "social science": 0.21, "language science": 0.25}
# fmt: off
WORDS = ["water", "force", "plant", "map", "city", "verb", "magnet", "energy", "soil", "colony", "noun", "cell", "trade"]
# fmt: on


def skills(rng: random.Random) -> list[dict[str, Any]]:
    """Return every skill with its category, topic and subject; each topic has a category, each category a skill."""
    topics = [(subject, f"{subject} topic {k}") for subject, n in TOPICS.items() for k in range(n)]
    categories = _spread(rng, topics, CATEGORIES, "category")
    named = _spread(rng, categories, SKILLS, "skill")
    rng.shuffle(named)
    subjects = [subject for subject, *_ in named]
    return [
        # a long tail inside a subject, whose skills together have the subject's share
        {
            "subject": s,
            "topic": t,
            "category": c,
            "skill": k,
            "weight": SHARE[s] / subjects.count(s) / (1 + i % 19) ** 0.8,
        }
        for i, (s, t, c, k) in enumerate(named)
    ]


def problems(rows: int = ROWS, seed: int = SEED) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (pid, problem); with `rows` of at least the number of skills each skill is there."""
    rng = random.Random(seed)
    known = skills(rng)
    ends = list(accumulate(k["weight"] for k in known))
    drawn = known[:rows] + rng.choices(known, cum_weights=ends, k=max(0, rows - len(known)))
    rng.shuffle(drawn)
    for pid, skill in enumerate(drawn, 1):
        yield str(pid), _problem(rng, skill)


def write(out: str, rows: int = ROWS, seed: int = SEED) -> str:
    """Write both files of a source with one split, `train`, and `images/train/<pid>/image.png`; return the folder."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    problems_by_pid = dict(problems(rows, seed))
    (folder / "problems.json").write_text(json.dumps(problems_by_pid), encoding="utf-8")
    (folder / "pid_splits.json").write_text(json.dumps({"train": list(problems_by_pid)}), encoding="utf-8")
    for pid, problem in problems_by_pid.items():
        if problem["image"]:
            place = folder / "images/train" / pid
            place.mkdir(parents=True, exist_ok=True)
            (place / "image.png").write_bytes(picture(problem["topic"], f"{seed} {pid}"))
    return out


def picture(topic: str, name: str) -> bytes:
    """Return a PNG of 96 × 64: the ground's colour is the topic's, the shapes are the record's own."""
    own, shared = random.Random(name), random.Random(topic)
    image = Image.new("RGB", (96, 64), _colour(shared))
    draw = ImageDraw.Draw(image)
    for _ in range(own.randint(1, 4)):
        left, top = own.randrange(80), own.randrange(50)
        place = (left, top, left + own.randint(6, 40), top + own.randint(6, 30))
        own.choice((draw.ellipse, draw.rectangle))(place, fill=_colour(own))
    written = BytesIO()
    image.save(written, "PNG")
    return written.getvalue()


def _colour(rng: random.Random) -> tuple[int, int, int]:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def _problem(rng: random.Random, skill: dict[str, Any]) -> dict[str, Any]:
    count = rng.choices((2, 3, 4, 5), (0.5, 0.28, 0.2, 0.02))[0]
    grade = min(12, max(1, round(rng.gauss(5.5, 2.2))))
    # a tenth has no solution, as in the real set
    solution = "" if rng.random() < 0.1 else _text(rng, round(rng.lognormvariate(3.6, 0.6)))
    return {
        "question": _text(rng, rng.randint(4, 25)) + "?",
        "choices": [_text(rng, rng.randint(1, 5)) for _ in range(count)],
        "answer": rng.randrange(count),
        "hint": _text(rng, 20) if rng.random() < 0.48 else "",
        "image": "image.png" if rng.random() < PICTURED[skill["subject"]] else None,
        "task": "closed choice",
        "grade": f"grade{grade}",
        **{k: skill[k] for k in ("subject", "topic", "category", "skill")},
        "lecture": _text(rng, 60) if rng.random() < 0.84 else "",
        "solution": solution,
        "split": "train",
    }


def _spread(rng: random.Random, above: list[Any], count: int, kind: str) -> list[Any]:
    """Hang `count` children under their parents, at least one each."""
    parents = above + rng.choices(above, k=count - len(above))
    return [(*parent, f"{kind} {number}") for number, parent in enumerate(parents)]


def _text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words)).capitalize()


if __name__ == "__main__":
    print(write(sys.argv[1], *map(int, sys.argv[2:])))
