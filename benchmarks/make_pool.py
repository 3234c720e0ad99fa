"""A synthetic pool with mix665k's composition: LLaVA JSON of any size, pictures for it, full-size feature tables.

`python benchmarks/make_pool.py OUT` writes OUT/mix.json: 665,298 records, 1 GB, indented and ordered at random as the
real file is, COCO's ids and pictures used by several sets. `--images N` adds the first N pictures, 640 × 480 JPEG.
`--features POOL` writes what `vinnow features` would, of random numbers with clusters in them, for an ingested pool.
Everything follows from `--seed`. Nothing is deleted.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
from vinnow.pool.reader import Pool
from vinnow.store.batches import FeatureBatch
from vinnow.store.features import shards_done, write_shard
from vinnow.store.keys import FeatureKey, recipe_text

# set: (records, folder of its pictures, distinct pictures, rounds from … to, words a question, words an answer);
# records are counts of mix665k, the lengths are set so that they make the real file's size
SETS = {
    "llava_talk": (56_681, "coco/train2017", 118_000, (3, 6), (6, 12), (12, 40)),
    "llava_detail": (23_240, "coco/train2017", 118_000, (1, 1), (6, 12), (80, 140)),
    "llava_reason": (77_791, "coco/train2017", 118_000, (1, 1), (10, 20), (80, 140)),
    "sharegpt": (40_688, None, 0, (1, 7), (10, 60), (60, 380)),
    "vqav2": (82_783, "coco/train2017", 118_000, (3, 8), (4, 9), (1, 2)),
    "gqa": (72_140, "gqa/images", 72_140, (8, 18), (5, 13), (1, 1)),
    "okvqa": (8_998, "coco/train2017", 118_000, (1, 1), (6, 12), (1, 2)),
    "ocr_vqa": (80_000, "ocr_vqa/images", 80_000, (4, 7), (5, 10), (1, 8)),
    "a_okvqa": (66_160, "coco/train2017", 118_000, (1, 1), (14, 26), (1, 2)),
    "textcaps": (21_953, "textvqa/train_images", 21_953, (1, 1), (20, 24), (8, 18)),
    "refcoco": (48_447, "coco/train2017", 118_000, (4, 9), (8, 16), (4, 9)),
    "vg": (86_417, "vg/VG_100K", 86_417, (6, 12), (5, 12), (4, 9)),
}
ROWS = sum(s[0] for s in SETS.values())
assert ROWS == 665_298
# of 2000 records so many are an exact repeat of the one before
REPEATS = 1
WORDS = [
    "the", "a", "of", "in", "on", "is", "are", "there", "what", "which", "color", "shape", "person", "man",
    "woman", "dog", "cat", "table", "street", "car", "train", "red", "blue", "left", "right", "behind", "front",
    "holding", "wearing", "standing", "sitting", "near", "large", "small", "wooden", "picture", "image",
    "shows", "several", "people", "building", "window", "light", "background", "foreground", "could", "might",
    "suggests", "likely", "activity", "area", "scene", "object", "bread", "kite", "surfboard", "umbrella",
    "bicycle", "giraffe", "elephant", "pizza", "laptop", "phone", "bottle", "chair", "bed", "clock", "vase",
]  # fmt: skip
# what real texts have, too: escapes, quotes, letters beyond ASCII, an emoji
RARE = ['said \\"no\\"', "line\\nbreak", "na\u00efve", "\u56fe\u7247", "caf\u00e9", "C:\\\\data", "\U0001f431", "x < y"]
PART = 8192


def shares(rows: int) -> dict[str, int]:
    """Return the records of each set in a pool of so many rows: mix665k's shares, largest remainders first."""
    exact = {name: rows * s[0] / ROWS for name, s in SETS.items()}
    counts = {name: int(n) for name, n in exact.items()}
    behind = sorted(SETS, key=lambda n: counts[n] - exact[n])
    for name in behind[: rows - sum(counts.values())]:
        counts[name] += 1
    return counts


def records(rows: int, seed: int = 0) -> Iterator[str]:
    """Yield records as JSON text, indented by two as an item of the array."""
    rng = random.Random(seed)
    order = [name for name, n in shares(rows).items() for _ in range(n)]
    rng.shuffle(order)
    texts = _Texts(rng)
    before = None
    for i, name in enumerate(order):
        if before is not None and before[0] == name and i % 2000 < REPEATS * 12:  # the neighbour is of this set 1 in 12
            yield before[1]
            continue
        before = (name, _record(rng, name, texts))
        yield before[1]


def _record(rng: random.Random, name: str, texts: dict[int, list[str]]) -> str:
    _, folder, pictures, rounds, asked, answered = SETS[name]
    number = int(rng.random() * pictures) if folder else 0
    if folder:
        # the id is the picture's: COCO's come up in several sets, and in one set several times
        head = f'    "id": "{number:012d}",\n    "image": "{folder}/{number:012d}.jpg",\n'
    else:
        head = f'    "id": "{rng.getrandbits(40):08x}_0",\n    "model": "",\n'
    turns, mark = [], "<image>\\n" if folder else ""
    for _ in range(rng.randint(*rounds)):
        question, answer = (rng.choice(texts[rng.randint(*words)]) for words in (asked, answered))
        turns.append(
            f'      {{\n        "from": "human",\n        "value": "{mark}{question}?"\n      }},\n'
            f'      {{\n        "from": "gpt",\n        "value": "{answer}"\n      }}'
        )
        mark = ""
    return f'  {{\n{head}    "conversations": [\n' + ",\n".join(turns) + "\n    ]\n  }"


class _Texts(dict[int, list[str]]):
    """Texts by their number of words, made when first asked for, as they stand between JSON's quotes."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.words = [rng.choice(RARE) if rng.random() < 0.01 else rng.choice(WORDS) for _ in range(50_000)]

    def __missing__(self, n: int) -> list[str]:
        starts = [self.rng.randrange(len(self.words) - n) for _ in range(500)]
        self[n] = [" ".join(self.words[i : i + n]) for i in starts]
        return self[n]


def write_json(path: str | Path, rows: int = ROWS, seed: int = 0) -> str:
    """Write the LLaVA JSON, a record at a time, and return its path."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", buffering=1 << 20) as sink:
        sink.write("[\n")
        for i, text in enumerate(records(rows, seed)):
            sink.write((",\n" if i else "") + text)
        sink.write("\n]\n")
    return str(path)


def write_images(source: str | Path, folder: str | Path, n: int, seed: int = 0) -> int:
    """Write the first `n` distinct pictures that a JSON asks for, 640 × 480 JPEG of some 60 KB; returns how many."""
    wanted: dict[str, None] = {}
    with open(source, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith('    "image": '):
                wanted[json.loads("{" + line.rstrip().rstrip(",") + "}")["image"]] = None
                if len(wanted) == n:
                    break
    write_pictures(wanted, folder, seed)
    return len(wanted)


def write_pictures(names: Iterable[str], folder: str | Path, seed: int = 0) -> None:
    """Write pictures of 640 × 480 by their names."""
    rng = np.random.default_rng(seed)
    for name in names:
        coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC), np.int16)
        grain = rng.integers(-12, 12, (480, 640, 1), dtype=np.int16)
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(path, quality=85)


KINDS = {"gradient": (8192, "float16"), "embedding": (4096, "float16"), "trajectory": (5, "float32")}


def write_features(pool: Pool, out: str | Path, kind: str, steps: range, seed: int = 0) -> None:
    """Write features of a pool's rows: `gradient` (8192 columns) or `embedding` (4096) in float16, `trajectory` (5) in 32.

    A vector is its cluster's centre (`source` and a hash of the id name the cluster, some move with the step) and
    noise: a window into one long random line, so that a part costs a copy and no generator. Parts that are there stay.
    """
    dim, stored = KINDS[kind]
    ids, sources = pool.ids(), pool.column("source")
    names = {name: i for i, name in enumerate(sorted(set(sources)))}
    cluster_N = np.array([names[s] for s in sources]) * 8 + (ids % np.uint64(8)).astype(np.int64)
    rng = np.random.default_rng(seed)
    centre_CD = rng.standard_normal((8 * len(names), dim), dtype=np.float32)
    drift_CD = rng.standard_normal((8 * len(names), dim), dtype=np.float32)
    line = rng.standard_normal(1 << 22, dtype=np.float32)
    # one buffer for all parts: fresh pages cost more than the numbers in them
    held_ND = np.empty((PART, dim), np.float32)
    for step in steps:
        moved_CD = centre_CD + np.float32(step / max(1, steps[-1])) * drift_CD
        key = FeatureKey(
            kind=kind, dim=dim, pool=pool.digest, model="0" * 16, checkpoint=step, recipe=recipe_text(synthetic=seed)
        )
        done = shards_done(out, key, stored)
        for number, start in enumerate(range(0, len(ids), PART)):
            if f"part-{number:06d}" in done:
                continue
            part, cluster = ids[start : start + PART], cluster_N[start : start + PART]
            offset_N = (part * np.uint64(0x9E3779B97F4A7C15) + np.uint64(step)) % np.uint64(len(line) - dim)
            vec_ND = held_ND[: len(part)]
            for vec, offset, c in zip(vec_ND, offset_N.tolist(), cluster.tolist()):
                np.add(line[offset : offset + dim], moved_CD[c], out=vec)
            norm_N = np.sqrt(np.einsum("nd,nd->n", vec_ND, vec_ND))
            if kind == "gradient":
                vec_ND /= norm_N[:, None]
            n_tokens = (600 + part % np.uint64(900)).astype(np.int32)
            write_shard(out, key, f"part-{number:06d}", FeatureBatch(part, n_tokens, vec_ND, norm=norm_N), stored)


def main() -> None:
    """Write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--images", type=int, default=0, help="pictures to write under OUT/images")
    parser.add_argument("--features", help="an ingested pool: write its features under OUT/features and nothing else")
    parser.add_argument("--kind", choices=tuple(KINDS), default="gradient")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    out = Path(asked.out)
    if asked.features:
        write_features(Pool(asked.features), out / "features", asked.kind, range(1, asked.steps + 1), asked.seed)
        return
    source = write_json(out / "mix.json", asked.rows, asked.seed)
    if asked.images:
        write_images(source, out / "images", asked.images, asked.seed)


if __name__ == "__main__":
    main()
