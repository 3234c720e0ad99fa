"""What is told of a picture: its captions and boxes, from COCO's files or from a table.

Boxes are [x1, y1, x2, y2] as shares of width and height, cut at the picture's edge.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from ...pool.json_stream import iter_records
from ...store.errors import InputError
from ...store.files import open_fs, read_bytes
from ...store.reading import FOREIGN, reading, refuse_irregular, shown

COLUMNS = ("image", "width", "height", "captions", "boxes")
# what COCO's annotations hold besides, and what nobody here reads: most of the file
_HEAVY = ("segmentation", "keypoints")


@dataclass(frozen=True)
class Box:
    """An object: its category, and where it is (shares of the picture's width and height)."""

    category: str
    corners: tuple[float, float, float, float]

    @property
    def area(self) -> float:
        """The share of the picture that it covers."""
        x1, y1, x2, y2 = self.corners
        return (x2 - x1) * (y2 - y1)

    def line(self) -> str:
        """Return it as a prompt shows it."""
        return f"{self.category}: [{', '.join(f'{c:.3f}' for c in self.corners)}]"


@dataclass(frozen=True)
class Subject:
    """A picture; `fault`: why nothing can be asked about it, or None."""

    image: str
    captions: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    fault: str | None = None


@dataclass(frozen=True)
class Subjects:
    """All pictures of a source, in its order; `told`: what was not used of it, by what it is."""

    pictures: tuple[Subject, ...]
    told: Counter[str]


def read_subjects(source: str, instances: str | None) -> Subjects:
    """Read COCO's captions (and instances) JSON, or a table with the columns image, width, height, captions, boxes.

    Raises:
        InputError: a file cannot be read, is neither, names a picture twice, or has no pictures.
    """
    coco = None if source.endswith((".parquet", ".jsonl")) else _coco_or_none(source)
    if coco is not None:
        subjects = _from_coco(coco, _coco(instances) if instances else None)
    else:
        if instances:
            raise InputError(
                f"{source!r} is a table, which holds its boxes itself; --instances is for COCO's captions."
            )
        subjects = Subjects(tuple(_of_row(row, number) for number, row in enumerate(_rows(source))), Counter())
    if not subjects.pictures:
        raise InputError(f"{source!r} has no pictures.")
    names = Counter(s.image for s in subjects.pictures if s.fault is None)
    twice = next((name for name, n in names.items() if n > 1), None)
    if twice is not None:
        raise InputError(f"{source!r} names the picture {shown(twice)} {names[twice]} times. Leave it once.")
    return subjects


# ---- COCO ----------------------------------------------------------------------------------------


def _coco_or_none(path: str) -> dict[str, Any] | None:
    """Return a JSON object of COCO's; None for an array or lines of rows."""
    data = read_bytes(path)
    if data.lstrip()[:1] != b"{" or b'"annotations"' not in data:
        return None
    return _parsed(data, path)


def _coco(path: str) -> dict[str, Any]:
    return _parsed(read_bytes(path), path)


def _parsed(data: bytes, path: str) -> dict[str, Any]:
    def slim(value: dict[str, Any]) -> dict[str, Any]:
        for name in _HEAVY:
            value.pop(name, None)
        return value

    with reading(path, "COCO's JSON"):
        values = json.loads(data, object_hook=slim)
        for name in ("images", "annotations"):
            if not isinstance(values[name], list) or not all(isinstance(v, dict) for v in values[name]):
                raise ValueError(f"{name!r} is no list of objects")
    return values


def _from_coco(captions: dict[str, Any], instances: dict[str, Any] | None) -> Subjects:
    told = Counter[str]()
    keyed = [(key, image) for image in captions["images"] if isinstance(key := image.get("id"), (int, str))]
    images = dict(keyed)
    told["pictures without an id"] = len(captions["images"]) - len(keyed)
    told["pictures whose id a later one has, too"] = len(keyed) - len(images)
    texts: dict[Any, list[str]] = defaultdict(list)
    for note in captions["annotations"]:
        key, text = note.get("image_id"), note.get("caption")
        if not isinstance(key, (int, str)) or key not in images:
            told["captions of no picture in the file"] += 1
        elif not isinstance(text, str) or not text.strip():
            told["captions without a text"] += 1
        else:
            texts[key].append(text)
    boxes = _coco_boxes(images, instances, told) if instances else {}
    pictures = [_subject(image, texts.get(key, []), boxes.get(key, [])) for key, image in images.items()]
    told["pictures without captions"] = sum(not p.captions for p in pictures)
    if instances:
        told["pictures without boxes"] = sum(not p.boxes for p in pictures)
    return Subjects(tuple(pictures), +told)


def _coco_boxes(images: dict[Any, Any], instances: dict[str, Any], told: Counter[str]) -> dict[Any, list[Any]]:
    kinds = instances.get("categories")
    kinds = [k for k in kinds if isinstance(k, dict)] if isinstance(kinds, list) else []
    names = {k.get("id"): k.get("name") for k in kinds if isinstance(k.get("id"), (int, str))}
    boxes: dict[Any, list[Any]] = defaultdict(list)
    for note in instances["annotations"]:
        key, category = note.get("image_id"), note.get("category_id")
        name = names.get(category) if isinstance(category, (int, str)) else None
        if not isinstance(key, (int, str)) or key not in images:
            told["boxes of no picture in the captions"] += 1
        elif not isinstance(name, str) or not name:
            told["boxes of no known category"] += 1
        elif note.get("iscrowd"):  # one box around many
            told["boxes of crowds"] += 1
        elif (box := _box(name, note.get("bbox"), images[key])) is None:
            told["boxes without an area, or outside of the picture"] += 1
        else:
            boxes[key].append(box)
    return boxes


def _subject(image: dict[str, Any], captions: list[str], boxes: list[Box]) -> Subject:
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        return Subject(shown(image), fault="the picture has no file_name")
    return Subject(name, _lines(captions), tuple(boxes))


# ---- a table -------------------------------------------------------------------------------------


def _rows(path: str) -> Iterator[Any]:
    if not path.endswith(".parquet"):
        yield from iter_records(path)
        return
    fs, inner = open_fs(path)
    if "://" not in path:
        refuse_irregular(inner)
    with reading(path, "a Parquet table"), fs.open_input_file(inner) as source:
        file = pq.ParquetFile(source)
        missing = [n for n in ("image", "captions") if n not in file.schema_arrow.names]
        if missing:
            raise InputError(f"{path!r} has no column {missing[0]!r}; a table of pictures has {', '.join(COLUMNS)}.")
        for batch in file.iter_batches(1024, columns=[n for n in COLUMNS if n in file.schema_arrow.names]):
            yield from batch.to_pylist()


def _of_row(row: Any, number: int) -> Subject:
    """Return the picture of a table's row, or what is wrong with it."""
    name = row.get("image") if isinstance(row, dict) else None
    if not isinstance(row, dict) or not isinstance(name, str) or not name:
        return Subject(f"row {number}", fault=f"it names no picture in `image`: {shown(row)}")
    captions, boxes = row.get("captions"), row.get("boxes") or []
    captions = [captions] if isinstance(captions, str) else captions or []
    if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
        return Subject(name, fault=f"`captions` is no list of texts: {shown(captions)}")
    if not isinstance(boxes, list) or not all(isinstance(b, dict) for b in boxes):
        return Subject(name, fault=f"`boxes` is no list of objects with category and bbox: {shown(boxes)}")
    read = [_box(b.get("category"), b.get("bbox"), row) for b in boxes]
    if None in read:
        wrong = boxes[read.index(None)]
        return Subject(
            name, fault=f"a box is none ({shown(wrong)}): bbox is [x, y, width, height] in pixels of the picture"
        )
    return Subject(name, _lines(captions), tuple(b for b in read if b is not None))


# ---- both ----------------------------------------------------------------------------------------


def _lines(captions: list[str]) -> tuple[str, ...]:
    """Return captions as one line each: a line of a prompt is one caption."""
    return tuple(line for c in captions if (line := " ".join(c.split())))


def _box(category: Any, bbox: Any, picture: dict[str, Any]) -> Box | None:
    """Return a box of [x, y, width, height] in pixels; None if it is none, or nothing of it lies in the picture."""
    try:
        width, height = float(picture["width"]), float(picture["height"])
        x, y, w, h = map(float, bbox)
    except FOREIGN:
        return None
    if (
        not isinstance(category, str)
        or not category.strip()
        or not all(map(math.isfinite, (x, y, w, h, width, height)))
    ):
        return None
    if width <= 0 or height <= 0:
        return None
    x1, y1, x2, y2 = (min(1.0, max(0.0, c)) for c in (x / width, y / height, (x + w) / width, (y + h) / height))
    return Box(" ".join(category.split()), (x1, y1, x2, y2)) if x1 < x2 and y1 < y2 else None
