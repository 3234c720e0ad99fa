"""README's measured tables, made from the rows in benchmarks/results: `python benchmarks/_tables.py` rewrites them.

A table stands between `<!-- table NAME -->` and `<!-- end -->`; tests/house/test_readme.py holds README to these rows.
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def result(name: str) -> dict:
    """Read a benchmark's row."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def gradients() -> str:
    """Per-sample gradients on one GPU, and the feature stage on two."""
    row, scaling = result("gradients"), result("scaling")
    ratio, ms = row["ratios"], row["ms_per_sample"]
    bars = {
        "`sjlt` ÷ plain Hugging Face LoRA forward+backward": (ratio["sjlt / plain forward+backward"], 1.0),
        "`rademacher`, 8192 columns ÷ the same": (ratio["rademacher / plain forward+backward"], 0.75),
        "`sjlt` ÷ LESS's way (batch 1, flat gradient, random signs in blocks)": (ratio["sjlt / LESS's way"], 4),
        "share of the arithmetic floor, 29.4 ms a sample (plain: " + f"{ratio['share of the floor (plain)']:.2f})": (
            ratio["share of the floor (sjlt)"],
            0.65,
        ),
        "two GPUs of one host ÷ one, whole feature stage": (scaling["ratio"], 1.9),
        "realistic lengths, tokens/s ÷ those at 776": (ratio["realistic / fixed tokens per s"], 0.9),
    }
    lines = ["| what | measured | bar |", "|---|---|---|"]
    lines += [f"| {what} | {got:.2f} | {bar} |" for what, (got, bar) in bars.items()]
    names = ("sjlt", "kron", "rademacher", "targets (22)", "projector, rademacher", "plain", "less")
    lines += ["", "| samples/s | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    lines += [f"| {row['machine']} | " + " | ".join(f"{1000 / ms[n]:.1f}" for n in names) + " |"]
    return "\n".join(lines) + "\n"


def fidelity() -> str:
    """Scores after projecting and quantising against exact ones."""
    row = result("fidelity")
    lines = ["| projection | columns | stored | Spearman | top 5 % overlap |", "|---|---|---|---|---|"]
    for r in row["table"]:
        name = f"{r['kind']}, {r['nonzeros']} non-zeros" if r["kind"] == "sjlt" else r["kind"]
        lines.append(
            f"| {name} | {r['dim']} | {r['stored']} | {r['spearman']:.3f} | {r['top_5_percent_overlap']:.0%} |"
        )
    return "\n".join(lines) + "\n"


def trajectories() -> str:
    """Attention trajectories on one GPU."""
    row = result("trajectories")
    bars = {
        "ours / plain forward": ("`flat` ÷ plain forward without LM head, 776 tokens", 0.95),
        "ours (heads) / plain forward": ("`heads` ÷ the same", "–"),
        "ours / published, realistic lengths": ("`flat` ÷ the published way, realistic lengths, one checkpoint", 2),
        "ours / published, 4 checkpoints from JPEG": ("the same, four checkpoints in one pass, pictures from JPEG", 3),
    }
    lines = ["| what | measured | bar |", "|---|---|---|"]
    lines += [f"| {what} | {row['ratios'][name]:.2f} | {bar} |" for name, (what, bar) in bars.items()]
    wrong = row["singular_values"]["largest_relative_error"]
    lines.append(f"| singular values ÷ `svdvals` in float64, largest relative error | {wrong:.0e} | 1e-4 |")
    return "\n".join(lines) + "\n"


def pool() -> str:
    """Ingest at mix665k's size, and the picture check."""
    row = result("pool_scale")
    ingest, images = row["ingest"], row["images"]
    peak, seconds, speed = ingest["peak_gib"], ingest["seconds"], images["images_per_s"]
    lines = ["| what | measured | bar |", "|---|---|---|"]
    lines += [
        f"| ingest of {ingest['rows']:,} records, {ingest['gigabytes']:.2f} GB: peak memory of all processes, GiB "
        f"(`json.load`: {peak['json.load']:.1f}) | {peak['ingest']:.2f} | 2.5 |",
        f"| the same: time ÷ `json.load` alone ({seconds['json.load']:.0f} s) | {ingest['ratio']:.2f} | 1.5 |",
        f"| `doctor --images`, images/s ÷ PIL's verify and load on one core ({speed['pil']:.0f}/s) "
        f"| {images['ratio']:.2f} | 1.7 |",
    ]
    return "\n".join(lines) + "\n"


TABLES = {"pool": pool, "gradients": gradients, "fidelity": fidelity, "trajectories": trajectories}


def filled(text: str) -> str:
    """Return a page with its tables made anew."""
    return BLOCK.sub(lambda m: m[1] + TABLES[m[2]]() + m[3], text)


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(filled(page.read_text()))
