"""How often intervals of 95 % hold the truth: two levels (`evaluate/statistics/levels.py`), against a bootstrap of seeds.

Tables are made up (`tests/seeded.py`): K choices that are trained by the same S seeds and asked the same questions about
500 pictures. A seed moves a choice's accuracy (by 1 point, one standard deviation, if nothing else is said) and turns
answers over; questions about one picture are right and wrong together. The truth is that over all seeds and pictures.
`shared`: half of what a seed does it does to all choices; `odd`: one choice's seeds differ by 2 points. The bootstrap
draws S of S seeds of each side, and whole pictures. `python benchmarks/coverage.py` writes its row to benchmarks/results/.
"""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from _measure import RESULTS, versions, write
from seeded import DRAWN, cover

PICTURES, DRAWS, BAR = 500, 200, 0.93
USUAL = {"choices": 5, "seeds": 3, "questions": 9000}
CASES: dict[str, dict[str, Any]] = {
    "3 seeds, 5 choices, 1,000 questions": {"questions": 1000, "draws": DRAWS},
    "3 seeds, 5 choices, 4,500 questions": {"questions": 4500},
    "3 seeds, 5 choices, 9,000 questions": {"draws": DRAWS},
    "3 seeds, 2 choices, 1,000 questions": {"choices": 2, "questions": 1000},
    "3 seeds, 2 choices, 9,000 questions": {"choices": 2, "draws": DRAWS},
    "3 seeds, 5 choices, 9,000 questions, seeds differ by 0.3 points": {"sd": 0.003},
    "3 seeds, 5 choices, 9,000 questions, seeds do nothing": {"sd": 0.0},
    "3 seeds, 5 choices, 9,000 questions, shared": {"shared": 0.5},
    "3 seeds, 5 choices, 9,000 questions, odd": {"odd": 0.02},
    "2 seeds, 5 choices, 9,000 questions": {"seeds": 2},
    "2 seeds, 2 choices, 9,000 questions": {"seeds": 2, "choices": 2, "draws": DRAWS},
    "5 seeds, 5 choices, 9,000 questions": {"seeds": 5},
}


def held(case: tuple[str, int]) -> dict[str, float]:
    """Return the shares of one case."""
    name, tables = case
    return cover(**(USUAL | {"pictures": PICTURES, "tables": tables} | CASES[name]))


def main() -> None:
    """Count, each case in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument("--out", default=str(RESULTS / "coverage.json"))
    asked = parser.parse_args()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        rows = dict(zip(CASES, pool.map(held, [(name, asked.tables) for name in CASES]), strict=True))
    rows = {name: {k: float(v) for k, v in row.items()} for name, row in rows.items()}
    # a choice whose seeds differ by twice as much is what pooling does not know
    usual = [row for name, row in rows.items() if name.startswith("3") and not name.endswith("odd")]
    least = min(share for row in usual for kind, share in row.items() if kind != DRAWN)
    row = {
        "claim": "intervals of 95 % over 3 seeds hold the truth in at least 93 of 100 tables",
        "ratio": least / BAR,
        "least": least,
        "tables": asked.tables,
        "pictures": PICTURES,
        "held": rows,
        "machine": f"{os.cpu_count()} cores",
        "versions": versions("numpy", "scipy"),
    }
    write(row, asked.out)


if __name__ == "__main__":
    main()
