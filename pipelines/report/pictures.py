"""Records as cards: a thumbnail inside the page (a data URI), the turns, the score."""

import base64
import io
from dataclasses import dataclass

from PIL import Image

from ...pool.images import ImageError, load_image
from .data import Shown

# pixels of the longer side: of what is embedded at most, of what is shown always
SIDE = 192
TURNS, LETTERS = 3, 160


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URI, and the size in pixels that it is shown at."""

    uri: str
    name: str
    width: int
    height: int


@dataclass(frozen=True)
class Card:
    """A record: its first turns, how many `more` there are, its score as text; without a `picture` what it is `lacking`."""

    task: str
    turns: list[tuple[str, str]]
    more: int
    score: str
    picture: Thumbnail | None = None
    lacking: str = ""
    why: str = ""


def card(record: Shown, scored: bool = True) -> Card:
    """Return one record's card; `scored` says whether its score tells anything."""
    pairs = zip(record.turns[: 2 * TURNS : 2], record.turns[1 : 2 * TURNS : 2])
    turns = [(_cut(q["value"].replace("<image>", "").strip()), _cut(a["value"])) for q, a in pairs]
    more = max(0, len(record.turns) // 2 - TURNS) if len(record.turns) > 2 * TURNS else 0
    score = f"{record.score:.4g}" if scored else ""
    if record.image is None:
        return Card(record.task, turns, more, score, lacking="text only")
    try:
        picture = load_image(record.image_root, record.image)
    except ImageError as error:
        lacking = error.reason.replace("_", " ")
        return Card(record.task, turns, more, score, lacking=lacking, why=str(error))
    return Card(record.task, turns, more, score, thumbnail(picture, record.image))


def thumbnail(picture: Image.Image, name: str) -> Thumbnail:
    """Return a picture, made small but large enough to see."""
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    # drawn shapes compress far better as PNG, photographs as JPEG: take the smaller one
    uri = min((_encode(picture, kind) for kind in ("png", "jpeg")), key=len)
    width, height = (max(1, round(side * SIDE / max(picture.size))) for side in picture.size)
    return Thumbnail(uri, name, width, height)


def _encode(picture: Image.Image, kind: str) -> str:
    out = io.BytesIO()
    picture.save(out, kind, optimize=True, **({"quality": 82} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"


def _cut(text: str) -> str:
    return text if len(text) <= LETTERS else text[: LETTERS - 1].rstrip() + "…"
