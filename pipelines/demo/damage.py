"""Planted damage: rows that ingest must refuse, each with the reason (a word of `pool/checks.py`)."""

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = "damaged"


def plant(records: list[dict[str, Any]], image_dir: str, seed: int, each: int = 2) -> list[tuple[int, str]]:
    """Insert `each` rows of every kind of damage at seeded places and return them as (row, expected reason).

    `records` is changed in place; each damaged row is a copy of a sound one that has a picture, a duplicate
    stands behind its original. Truncated pictures are written to `image_dir/damaged`, those outside the root to
    `image_dir/../outside`.
    """
    rng = random.Random(seed)
    sound = [r for r in records if r.get("image")]
    kinds: list[tuple[str, Callable[[dict[str, Any], str, str], None]]] = [
        ("image_missing", _missing),
        ("image_truncated", _truncated),
        ("duplicate", lambda record, image_dir, name: None),
        ("bad_role", _bad_role),
        ("image_outside_root", _outside),
    ]
    reasons: dict[int, str] = {}
    for (reason, spoil), original in zip(kinds * each, rng.sample(sound, len(kinds) * each), strict=True):
        bad = copy.deepcopy(original)
        bad["id"] = f"damage-{reason}-{len(reasons)}"
        spoil(bad, image_dir, f"{len(reasons)}.png")
        behind = next(i for i, r in enumerate(records) if r is original) + 1
        records.insert(rng.randint(behind, len(records)), bad)
        reasons[id(bad)] = reason
    return [(i, reasons[id(r)]) for i, r in enumerate(records) if id(r) in reasons]


def _missing(record: dict[str, Any], image_dir: str, name: str) -> None:
    record["image"] = f"{FOLDER}/no-such-{name}"


def _truncated(record: dict[str, Any], image_dir: str, name: str) -> None:
    whole = (Path(image_dir) / record["image"]).read_bytes()
    record["image"] = f"{FOLDER}/{name}"
    path = Path(image_dir) / record["image"]
    path.parent.mkdir(parents=True, exist_ok=True)
    # half a PNG: the header is sound, the pixel data ends in the middle
    path.write_bytes(whole[: len(whole) // 2])


def _bad_role(record: dict[str, Any], image_dir: str, name: str) -> None:
    record["conversations"][0]["from"] = "narrator"


def _outside(record: dict[str, Any], image_dir: str, name: str) -> None:
    # a sound picture, so that nothing but its place can be the reason
    path = Path(image_dir).parent / "outside" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((Path(image_dir) / record["image"]).read_bytes())
    record["image"] = f"../outside/{name}"
