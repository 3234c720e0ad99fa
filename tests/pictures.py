"""Small pictures of shapes and LLaVA records about them, for tests."""

import json
import random

from PIL import Image, ImageDraw

COLORS = {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 200, 0), "black": (0, 0, 0)}
SHAPES = ("circle", "rectangle")


def make_records(n: int, seed: int = 0) -> tuple[list[dict], dict[str, Image.Image]]:
    """Return `n` LLaVA records (one in five text-only, one to four turns) and their pictures by relative path."""
    rng = random.Random(seed)
    records, pictures = [], {}
    for i in range(n):
        color, shape = rng.choice(list(COLORS)), rng.choice(SHAPES)
        turns = [
            ("what color is the shape?", color, "color"),
            ("what shape is in the image?", shape, "shape"),
            (f"is there a {color} shape?", "yes", "is_color"),
            (f"does the image contain a {shape}?", "yes", "is_shape"),
        ]
        rng.shuffle(turns)
        turns = turns[: rng.randint(1, 4)]
        text_only = i % 5 == 4
        conversations = []
        for k, (question, answer, _) in enumerate(turns):
            mark = "<image>\n" if k == 0 and not text_only else ""
            conversations += [{"from": "human", "value": mark + question}, {"from": "gpt", "value": answer}]
        record = {
            "id": f"r{i}",
            "conversations": conversations,
            "task": turns[0][2],
            "source": "text" if text_only else "shapes",
        }
        if not text_only:
            record["image"] = f"pics/{i}.png"
            pictures[record["image"]] = _draw(color, shape, rng)
        records.append(record)
    return records, pictures


def write_records(folder, records, pictures) -> str:
    """Write records and pictures as LLaVA ships them and return the JSON's path; the image root is `folder/images`."""
    for relative, picture in pictures.items():
        path = folder / "images" / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    source = folder / "records.json"
    source.write_text(json.dumps(records))
    return str(source)


def _draw(color: str, shape: str, rng: random.Random) -> Image.Image:
    picture = Image.new("RGB", (64, 64), (240, 240, 250))
    x, y, r = rng.randint(4, 36), rng.randint(4, 36), rng.randint(12, 24)
    draw = ImageDraw.Draw(picture)
    (draw.ellipse if shape == "circle" else draw.rectangle)((x, y, x + r, y + r), fill=COLORS[color])
    return picture
