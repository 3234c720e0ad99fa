"""The demo's data: the PyPI package `easy-vqa` (5,000 real pictures, 48k questions, MIT) as LLaVA records.

One conversation a (picture, kind of question); captions for stage 1; a test set and a small target set whose
pictures do not meet; text-only records; planted damage. All statements follow from the package's answers or
from the pixels.
"""

import importlib
import json
import random
import re
import shutil
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from ...store.config import Config
from ...store.errors import InputError
from ...store.facts import read_fields
from ...store.files import write_bytes, write_json
from . import damage, text_only
from .text_only import COLORS, SHAPES

Task = Literal["color", "shape", "is_color", "is_shape"]
TASKS: tuple[Task, ...] = ("color", "shape", "is_color", "is_shape")
TRAIN_PICTURES = 4000
SOURCE = "easy_vqa"
DONE = "demo.json"
_SHAPE = re.compile("|".join(SHAPES))
_COLOR = re.compile("|".join(COLORS))


class DemoDataConfig(Config):
    """How much of easy-vqa the demo uses."""

    pictures: int = Field(TRAIN_PICTURES, ge=10, le=TRAIN_PICTURES, description="Train pictures.")
    text_rows: int = Field(300, ge=0, le=text_only.COUNT, description="Rows without a picture.")
    turns_max: int = Field(6, ge=1, description="The most questions that a conversation keeps.")
    test_per_task: int = Field(250, ge=1, description="Test questions of each task.")
    target_rows: int = Field(24, ge=1, description="Target records for each of `target_tasks`.")
    target_tasks: tuple[Task, ...] = Field(("color",), description="The tasks of the target set.")
    damage: bool = Field(True, description="Plant damaged rows, which ingest has to refuse.")
    seed: int = Field(0, description="Draws all of it.")


@dataclass(frozen=True)
class DemoData:
    """Where the demo's data lies: JSON files in LLaVA's format and one `images` root.

    `planted` lists the damaged rows of `train` as (row, reason): exactly those must be refused by an ingest
    with `duplicates="refuse"`.
    """

    images: str
    train: str
    captions: str
    test: str
    target: str
    planted: list[tuple[int, str]] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Question:
    text: str
    answer: str
    picture: int
    task: Task


def build(out: str, config: DemoDataConfig) -> DemoData:
    """Write the demo's data under `out`; again with the same config it does nothing.

    Raises:
        InputError: easy-vqa is missing or another version, it has too few questions, or `out` was made by
            another
            config.
    """
    root = Path(out).absolute()
    fields = config.model_dump(mode="json")
    if (root / DONE).is_file():
        kinds = {"config": dict[str, Any], "planted": list[tuple[int, str]], "rows": dict[str, int]}
        done = read_fields(root / DONE, "note of the demo's data", "Delete that folder and run again.", **kinds)
        if done["config"] != fields:
            raise InputError(f"{out} holds demo data made with another config. Delete it, or use another folder.")
        planted = [(int(row), str(reason)) for row, reason in done["planted"]]
        return _data(root, planted, done["rows"])
    package = _package()
    rng = random.Random(config.seed)
    train = _questions(*package.get_train_questions())
    test = _questions(*package.get_test_questions())
    shown = set(rng.sample(sorted({q.picture for q in train}), config.pictures))
    train = [q for q in train if q.picture in shown]
    target = _take_target(test, config, rng)
    seen = {r["image"] for r in target}
    asked = _take_test([q for q in test if _path("test", q.picture) not in seen], config, rng)
    images = root / "images"
    _copy(package.get_train_image_paths(), images / "train", shown)
    _copy(package.get_test_image_paths(), images / "test", {int(Path(r["image"]).stem) for r in target + asked})
    records = _conversations(train, config.turns_max) + text_only.records(config.text_rows, rng)
    rng.shuffle(records)
    planted = damage.plant(records, str(images), config.seed) if config.damage else []
    files = {"train": records, "captions": _captions(train, images), "test": asked, "target": target}
    for name, rows in files.items():
        write_bytes(root / f"{name}.json", json.dumps(rows, ensure_ascii=False, indent=1).encode())
    data = _data(root, planted, {name: len(rows) for name, rows in files.items()})
    write_json(root / DONE, {"config": fields, "planted": data.planted, "rows": data.rows})
    return data


def kind_of(question: str) -> Task:
    """Return the kind of an easy-vqa question: what colour, what shape, or yes/no about one of them.

    Raises:
        InputError: it is none of them (another version of the package).
    """
    if question.startswith(("what color", "what is the color")):
        return "color"
    if question.startswith("what"):
        return "shape"
    if _SHAPE.search(question):
        return "is_shape"
    if _COLOR.search(question):
        return "is_color"
    raise InputError(f"easy-vqa question of an unknown kind: {question!r}. This demo knows easy-vqa 1.0.")


def look(picture: Image.Image) -> tuple[str, str]:
    """Return (size, place) of the one shape in a picture, from its pixels.

    Size: `small` below 5 % of the area, `large` above 15 %, else `medium`. Place: where the centre of mass
    lies in a grid of thirds, as `top left`, `centre`, ….
    """
    rgb = np.asarray(picture.convert("RGB"), np.int16)
    background = np.median(rgb.reshape(-1, 3), axis=0)
    # a shape's edge is blended with its background; 60 of 765 counts that blend as inside
    inside = np.abs(rgb - background).sum(axis=2) > 60
    y, x = (axis.mean() / side for axis, side in zip(np.nonzero(inside), inside.shape))
    share = inside.mean()
    size = "small" if share < 0.05 else "large" if share > 0.15 else "medium"
    row = ("top", "", "bottom")[min(int(y * 3), 2)]
    column = ("left", "", "right")[min(int(x * 3), 2)]
    return size, f"{row} {column}".strip() or "centre"


def _data(root: Path, planted: list[tuple[int, str]], rows: dict[str, int]) -> DemoData:
    places = {name: str(root / f"{name}.json") for name in ("train", "captions", "test", "target")}
    return DemoData(str(root / "images"), **places, planted=planted, rows=rows)


def _package() -> Any:
    try:
        return importlib.import_module("easy_vqa")
    except ImportError as error:
        raise InputError(
            "the demo's pictures come from the package easy-vqa, which is missing: pip install easy-vqa==1.0"
        ) from error


def _questions(texts: Any, answers: Any, pictures: Any) -> list[_Question]:
    rows = zip(texts, answers, pictures, strict=True)
    return [_Question(t, a, int(p), kind_of(t)) for t, a, p in rows]


def _path(split: str, picture: int) -> str:
    return f"{split}/{picture}.png"


def _record(split: str, questions: list[_Question]) -> dict[str, Any]:
    first = questions[0]
    turns = []
    for i, q in enumerate(questions):
        turns.append({"from": "human", "value": ("<image>\n" if i == 0 else "") + q.text})
        turns.append({"from": "gpt", "value": q.answer})
    return {
        "id": f"{split}-{first.picture}-{first.task}",
        "image": _path(split, first.picture),
        "task": first.task,
        "source": SOURCE,
        "conversations": turns,
    }


def _conversations(questions: list[_Question], turns_max: int) -> list[dict[str, Any]]:
    groups: dict[tuple[int, str], list[_Question]] = defaultdict(list)
    for q in questions:
        groups[q.picture, q.task].append(q)
    return [_record("train", group[:turns_max]) for group in groups.values()]


def _take_target(test: list[_Question], config: DemoDataConfig, rng: random.Random) -> list[dict[str, Any]]:
    """One question a record, one record a picture; their pictures are kept out of the test set."""
    used: set[int] = set()
    records = []
    for task in config.target_tasks:
        one_each = {q.picture: q for q in test if q.task == task and q.picture not in used}
        chosen = _sample(sorted(one_each), config.target_rows, f"target pictures for {task!r}", rng)
        used |= set(chosen)
        records += [_record("test", [one_each[p]]) for p in chosen]
    return records


def _take_test(test: list[_Question], config: DemoDataConfig, rng: random.Random) -> list[dict[str, Any]]:
    records = []
    for task in TASKS:
        asked = [q for q in test if q.task == task]
        chosen = _sample(range(len(asked)), config.test_per_task, f"test questions of {task!r}", rng)
        for number, i in enumerate(sorted(chosen)):
            record = _record("test", [asked[i]])
            records.append(record | {"id": f"{record['id']}-{number}"})
    return records


def _sample(values: Any, n: int, what: str, rng: random.Random) -> list[int]:
    if n > len(values):
        raise InputError(f"the demo asks for {n} {what}; there are {len(values)}. Ask for fewer.")
    return rng.sample(values, n)


def _captions(questions: list[_Question], images: Path) -> list[dict[str, Any]]:
    """Caption each picture whose colour and shape the questions reveal; its pixels say size and place."""
    colors: dict[int, str] = {}
    shapes: dict[int, str] = {}
    for q in questions:
        # "what color is the circle?" names the shape, "what is the blue shape?" the colour: both are facts
        if q.task in ("color", "shape"):
            for facts, pattern in ((colors, _COLOR), (shapes, _SHAPE)):
                if match := pattern.search(f"{q.text} {q.answer}"):
                    facts[q.picture] = match.group()
    records = []
    for picture in sorted(colors.keys() & shapes.keys()):
        with Image.open(images / _path("train", picture)) as opened:
            size, place = look(opened)
        caption = f"A {size} {colors[picture]} {shapes[picture]} at the {place}."
        records.append(
            {
                "id": f"caption-{picture}",
                "image": _path("train", picture),
                "task": "caption",
                "source": SOURCE,
                "conversations": [
                    {"from": "human", "value": "<image>\nDescribe the picture."},
                    {"from": "gpt", "value": caption},
                ],
            }
        )
    return records


def _copy(paths: dict[int, str], folder: Path, pictures: set[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for picture in sorted(pictures):
        shutil.copyfile(paths[picture], folder / f"{picture}.png")
