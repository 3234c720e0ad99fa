"""Ingest of mix665k's size beside `json.load`, and the picture check beside plain PIL, both sides in one run.

Each side is a process of its own, in turn, twice; a figure is the better of the two rounds of each. Memory is the sum
over all processes of a side (PSS, every 50 ms). `python benchmarks/pool_scale.py` makes the data in a temporary folder
(some 3 GB) and writes benchmarks/results/pool_scale.json.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _measure import RESULTS, versions, watched, write
from make_pool import ROWS, write_images, write_json

LOAD = "import sys, json; rows = json.load(open(sys.argv[1], encoding='utf-8')); import os; os._exit(0)"
INGEST = """
import sys, json
from vinnow.pool.ingest import IngestConfig, ingest
report = ingest(IngestConfig(source=sys.argv[1], check_images="none"), sys.argv[2])
print(json.dumps({"rows": report.rows, "digest": report.digest}))
"""
# verify() reads a JPEG's header alone and spoils the object, so that the pixels need a second open; imports are not timed
PIL = """
import sys, time
from pathlib import Path
from PIL import Image
begin = time.perf_counter()
for path in sorted(Path(sys.argv[1]).rglob("*.jpg")):
    Image.open(path).verify()
    with Image.open(path) as picture:
        picture.load()
print(time.perf_counter() - begin, time.process_time())
"""
DOCTOR = """
import os, sys, time
from vinnow.pool.doctor import examine
from vinnow.pool.ingest import IngestConfig
begin = time.perf_counter()
report = examine(IngestConfig(source=sys.argv[1], image_root=sys.argv[2]))
assert report.refused == 0 and report.rows > 0, report
print(time.perf_counter() - begin, sum(os.times()[:4]))
"""


def run(code: str, *arguments: str) -> tuple[float, float, str]:
    """Run code in a process; returns its seconds, its and its children's peak memory in GiB, and what it printed."""
    return watched(sys.executable, "-c", code, *arguments)


def ingest_beside_load(folder: Path, rows: int) -> dict:
    """Time and memory of ingest without pictures, and of `json.load` of the same file."""
    source = write_json(folder / "mix.json", rows)
    sides: dict[str, list] = {"json.load": [], "ingest": []}
    for round_ in (1, 2):
        sides["json.load"].append(run(LOAD, source))
        sides["ingest"].append(run(INGEST, source, str(folder / f"pool-{round_}")))
    reports = [json.loads(s[2]) for s in sides["ingest"]]
    assert reports[0] == reports[1], reports
    assert reports[0]["rows"] == rows, reports
    best = {name: min(s[0] for s in rounds) for name, rounds in sides.items()}
    return {
        "ratio": best["ingest"] / best["json.load"],
        "rounds": [i[0] / j[0] for i, j in zip(sides["ingest"], sides["json.load"])],
        "seconds": best,
        "peak_gib": {name: max(s[1] for s in rounds) for name, rounds in sides.items()},
        "rows": rows,
        "gigabytes": os.path.getsize(source) / 1e9,
    }


def pictures_beside_pil(folder: Path, number: int) -> dict:
    """Images per second of the doctor, and of a loop over PIL on one core."""
    source = write_json(folder / "pictures.json", 2 * number, seed=1)
    write_images(source, folder / "images", number)
    written = {p.relative_to(folder / "images").as_posix() for p in (folder / "images").rglob("*.jpg")}
    records = {r.get("image"): r for r in json.loads(Path(source).read_text()) if r.get("image") in written}
    Path(source).write_text(json.dumps(list(records.values())))
    sides: dict[str, list[list[float]]] = {"pil": [], "doctor": []}
    for _ in range(4):
        for name, code, arguments in (("pil", PIL, []), ("doctor", DOCTOR, [source])):
            sides[name].append([float(n) for n in run(code, *arguments, str(folder / "images"))[2].split()])
    speed = {name: number / min(s for s, _ in rounds) for name, rounds in sides.items()}
    return {
        "ratio": speed["doctor"] / speed["pil"],
        "rounds": [p[0] / d[0] for p, d in zip(sides["pil"], sides["doctor"])],
        "images_per_s": speed,
        # whole processes, imports too: what a second of one core does, whoever else is on the machine
        "images_per_cpu_s": {name: number / min(c for _, c in rounds) for name, rounds in sides.items()},
        "images": number,
    }


def main() -> None:
    """Measure both and write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--folder", help="where the data is made; a temporary folder when left out")
    parser.add_argument("--out", default=str(RESULTS / "pool_scale.json"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as temporary:
        row = {
            "images": pictures_beside_pil(Path(temporary), asked.images),
            "ingest": ingest_beside_load(Path(temporary), asked.rows),
            "machine": f"{os.cpu_count()} cores",
            # over the last 15 minutes; more than the sides' own two means that they had to share
            "load_average": os.getloadavg()[2],
            "versions": versions("pyarrow", "pillow"),
        }
    write(row, asked.out)


if __name__ == "__main__":
    main()
