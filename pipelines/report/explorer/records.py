"""The records of a page as plain lists for its scripts: texts, pictures, all scores and ranks, and which choices took each.

Nothing here is markup: the page holds it as JSON, and its scripts show texts as texts.
Axes: H records held with picture and whole text, P points (the held ones first).
"""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ....pool.images import ImageError, load_image
from ....pool.reader import Pool
from ....pool.records import Record
from ....store.arrays import Array
from ..markup import clean
from .cells import CUTS, Cells, edges_of
from .choices import Choice, Chosen
from .mapped import Map
from .sample import Sample
from .scores import Scored

# pixels of a picture's longer side, bytes of all pictures; letters of a record, and of what a point of the map says
SIDE, QUALITY, PICTURES = 160, 62, 3_200_000
LETTERS, BRIEF = 6_000, 90
# records that are read at a time, so that memory does not grow with how many are shown
_READ = 2_000


@dataclass(frozen=True)
class Explorer:
    """What a page's gallery, record pages and map show: JSON for its scripts, and what is said of it."""

    payload: dict[str, Any]
    said: str
    said_of_points: str
    map: Map | None


def explorer_of(pool: Pool, chosen: Chosen, cells: Cells, sample: Sample, mapped: Map | None) -> Explorer:
    """Read the records of a sample, and put together what a page holds of them."""
    points_P, held = sample.points_P, len(sample.held_H)
    brief, full, room = [], [], PICTURES
    for start in range(0, len(points_P), _READ):
        # in the pool's order, since it is read by groups of rows
        rows = points_P[start : start + _READ]
        for number, record in enumerate(pool.take(chosen.ids_N[rows]), start):
            brief.append(_brief(record))
            if number < held:
                full.append(_full(record, pool.image_root, room))
                room -= len(full[-1].get("picture", ""))
    payload = {
        "total": chosen.rows,
        "held": held,
        "sources": [clean(n) for n in cells.sources],
        "tasks": [clean(n) for n in cells.tasks],
        "cuts": list(CUTS),
        "choices": [_choice(chosen, c) for c in chosen.choices],
        "scores": [_scores(s, points_P) for s in chosen.scored],
        "id": [str(i) for i in chosen.ids_N[points_P]],
        "source": cells.source_N[points_P].tolist(),
        "task": cells.task_N[points_P].tolist(),
        "pictured": chosen.pictured_N[points_P].astype(int).tolist(),
        "letters": chosen.letters_N[points_P].tolist(),
        "taken": [_taken(chosen, c, points_P) for c in chosen.choices],
        "brief": brief,
        "full": full,
        "counts": cells.counts,
    }
    if mapped:
        payload["map"] = {"x": _whole(mapped.x_P), "y": _whole(mapped.y_P)}
    return Explorer(payload, sample.said, sample.said_of_points, mapped)


def _choice(chosen: Chosen, choice: Choice) -> dict[str, Any]:
    scores = chosen.scores_of(choice)
    return {
        "selector": clean(choice.selector),
        "budget": clean(choice.budget),
        "seed": choice.seed,
        "rows": len(choice.rows_K),
        "scores": chosen.scored.index(scores) if scores is not None else None,
    }


def _taken(chosen: Chosen, choice: Choice, points_P: Array) -> list[int]:
    taken_N = np.zeros(chosen.rows, bool)
    taken_N[choice.rows_K] = True
    return np.flatnonzero(taken_N[points_P]).tolist()


def _scores(scored: Scored, points_P: Array) -> dict[str, Any]:
    return {
        "name": clean(scored.name),
        "means": scored.means,
        "rows": int(scored.rank_N.max(initial=0)),
        "edges": [edge and [_short(v) for v in edge] for edge in edges_of(scored)],
        "score": [_short(v) for v in scored.best_N[points_P]],
        "rank": scored.rank_N[points_P].tolist(),
    }


def _short(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.5g}")


def _whole(place_P: Array) -> list[int | None]:
    return [None if np.isnan(v) else int(v) for v in place_P]


def _brief(record: Record) -> str:
    text = " ".join(t["value"] for t in record.conversations[:2]).replace("<image>", " ")
    text = clean(" ".join(text[: 4 * BRIEF].split()))
    return text if len(text) <= BRIEF else text[: BRIEF - 1].rstrip() + "…"


def _full(record: Record, root: str | None, room: int) -> dict[str, Any]:
    """Return a record's turns, whole up to LETTERS, and its picture or why there is none."""
    turns, left = [], LETTERS
    for turn in record.conversations:
        turns.append([clean(turn["from"]), clean(turn["value"][: max(0, left)])])
        left -= len(turn["value"])
        if left <= 0:
            break
    letters = sum(len(t["value"]) for t in record.conversations)
    shown: dict[str, Any] = {"turns": turns, "cut": max(0, letters - LETTERS)}
    if not record.images:
        return shown | {"lacking": "text only"}
    shown["images"] = [clean(name) for name in record.images]
    if room <= 0:
        return shown | {"lacking": "picture left out: this page has room for so many"}
    try:
        return shown | {"picture": thumbnail(load_image(root, record.images[0]))}
    except ImageError as error:
        return shown | {"lacking": clean(error.reason.replace("_", " ")), "why": clean(error)}


def thumbnail(picture: Image.Image) -> str:
    """Return a small WebP of a picture as a data URI."""
    picture = picture.convert("RGB")
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=QUALITY, method=2)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
