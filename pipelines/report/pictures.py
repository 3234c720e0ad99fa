"""Records as cards: a thumbnail inside the page (a data URI), the turns, the score."""

import base64
import io

from PIL import Image

from ...pool.images import ImageError, load_image
from .data import Shown
from .markup import Html, esc, tag

# pixels of the longer side: of what is embedded at most, of what is shown always
SIDE = 192
TURNS, LETTERS = 3, 160


def card(record: Shown, scored: bool = True) -> Html:
    """Return one record as a list item; `scored` says whether its score tells anything."""
    turns = []
    for question, answer in zip(record.turns[: 2 * TURNS : 2], record.turns[1 : 2 * TURNS : 2]):
        turns.append(tag("dt", _cut(question["value"].replace("<image>", "").strip())))
        turns.append(tag("dd", _cut(answer["value"])))
    if len(record.turns) > 2 * TURNS:
        turns.append(tag("dd", f"… and {len(record.turns) // 2 - TURNS} more"))
    score = f" · score {record.score:.4g}" if scored else ""
    facts = tag("p", tag("b", record.task), score, class_="facts")
    return tag("li", thumbnail(record), tag("div", facts, tag("dl", *turns)), class_="card")


def thumbnail(record: Shown) -> Html:
    """Return a picture, large enough to see, as a data URI; a text-only or lost one is said in words."""
    if record.image is None:
        return tag("span", "text only", class_="nopic")
    try:
        picture = load_image(record.image_root, record.image)
    except ImageError as error:
        return tag("span", error.reason.replace("_", " "), class_="nopic", title=str(error))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    # drawn shapes compress far better as PNG, photographs as JPEG: take the smaller one
    uri = min((_encode(picture, kind) for kind in ("png", "jpeg")), key=len)
    width, height = (max(1, round(side * SIDE / max(picture.size))) for side in picture.size)
    return tag("img", src=uri, alt=f"picture {record.image}", width=width, height=height)


def _encode(picture: Image.Image, kind: str) -> str:
    out = io.BytesIO()
    picture.save(out, kind, optimize=True, **({"quality": 82} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"


def _cut(text: str) -> Html:
    return esc(text if len(text) <= LETTERS else text[: LETTERS - 1].rstrip() + "…")
