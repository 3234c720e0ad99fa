"""docs/families.md, made of what the tests wrote down: `python benchmarks/_families_page.py` rewrites it.

`python -m pytest -m "works or refuses" --record-works` writes tests/works.json before; 4 bits need bitsandbytes.
"""

import json
from pathlib import Path
from typing import Any

from vinnow.models import registry
from vinnow.models.missing import MISSING

ROOT = Path(__file__).resolve().parent.parent
PAGE, TABLE = ROOT / "docs" / "families.md", ROOT / "tests" / "works.json"
HEAD = """# Families, and what works on each

Written by `python benchmarks/_families_page.py` from tests that passed on each family's tiny model (`tests/works.json`).
A new family's column, and a new row, come from there too: `python -m pytest -m "works or refuses" --record-works`.
How a family is added stands in [first-family.md](first-family.md).
"""
HOW = """
What is taken of a row (loss, embeddings, gradients, trajectories, MoReS, imbalance) is held in float64 to Hugging Face's
own forward pass, or `generate`, of that row alone: 1e-9 of the largest value. Both sides are kept from rounding to float32
inside (norms, softmax), or they would differ as that rounding does. Stored features are float32, influence is held to 1e-4.
Rows have one picture, two in one turn, one in each of two turns, or none; pictures have four sizes. Two workers under
ZeRO-3 train Qwen2.5-VL; that ranks ask for weights in one order, with pictures and without, is held on each family.
"""


def page(table: dict[str, Any]) -> str:
    """Return the page for what is in `tests/works.json`."""
    families = registry.families()
    names = sorted(families)
    lines = [HEAD, "| family | class | `model_type` |", "|---|---|---|"]
    for name in names:
        label, _, rest = families[name].label.partition(" (")
        kinds = ", ".join(f"`{kind}`" for kind in families[name].kinds)
        lines.append(f"| {label} | `{rest.removesuffix(')')}` | {kinds} |")
    lines += ["", "## What works", f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for what, on in table["works"].items():
        lines.append(f"| {what} | {' | '.join('yes' if name in on else '–' for name in names)} |")
    lines += [HOW, "## What is refused", "By name, with what is missing, and never done approximately:", ""]
    kinds_by_reason: dict[str, list[str]] = {}
    for kind, why in MISSING.items():
        kinds_by_reason.setdefault(why, []).append(f"`{kind}`")
    lines += [f"- {', '.join(kinds)}: {why}" for why, kinds in kinds_by_reason.items()]
    lines += [f"- {what}" for what in table["refuses"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(TABLE.read_text())), encoding="utf-8")
