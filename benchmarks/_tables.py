"""docs/benchmarks.md's tables, made from the rows in benchmarks/results: `python benchmarks/_tables.py` rewrites them.

A table stands between `<!-- table NAME -->` and `<!-- end -->`; tests/house/test_readme.py holds the page to these rows.
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
        "two GPUs of one host ÷ one, whole feature stage": (scaling["ratio"], 1.95),
        "share of that time in which a GPU waits (at most)": (scaling["gpus"]["2"]["gpu_waits"], 0.05),
        "the same for Qwen2.5-VL-7B's shape, as long as its tower attended window by window": (
            result("scaling_qwen")["ratio"],
            0.05,
        ),
        "that tower window by window ÷ windows of one length together, seconds": (result("qwen_tower")["ratio"], "–"),
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
    row, scaling = result("trajectories"), result("scaling_trajectory")
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
    lines.append(f"| two GPUs of one host ÷ one, whole feature stage | {scaling['ratio']:.2f} | 1.9 |")
    rates = row["samples_per_s"] | {"stage": scaling["gpus"]["1"]["rows_per_s"]}
    names = {
        "plain forward": "plain forward",
        "ours, flat": "`flat`",
        "ours, heads": "`heads`",
        "ours, realistic": "`flat`, realistic lengths",
        "published, realistic": "the published way",
        "stage": "whole stage",
    }
    lines += ["", "| samples/s | " + " | ".join(names.values()) + " |", "|---|" + "---|" * len(names)]
    lines += [f"| {row['machine']} | " + " | ".join(f"{rates[n]:.1f}" for n in names) + " |"]
    return "\n".join(lines) + "\n"


def clustering() -> str:
    """From stored trajectories to picks at full size."""
    row = result("clustering")
    rest, sides = row["all_but_kmeans_s"], row["sides"]
    lines = ["| what | ours | the scripts' way | bar |", "|---|---|---|---|"]
    both = [f"{rest[n]:.1f} s" for n in ("ours", "published")]
    lines.append(f"| all but k-means | {both[0]} | {both[1]} ({row['ratio']:.1f} times ours) | ≥ 10 times |")
    means = [f"{sides[n]['seconds']['k-means']:.0f} s" for n in ("ours", "published")]
    lines.append(f"| k-means itself | {means[0]} (all points) | {means[1]} (256,000 points) | – |")
    lines.append(f"| peak memory | {sides['ours']['peak_gib']:.2f} GiB | – | ≤ 3 GiB |")
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


def workers() -> str:
    """Ingest in children on pipes, in a plain process pool, and in one without blocks."""
    row = result("ingest_workers")
    sides = {"ours": "ours", "pool": "the same blocks, plain process pool", "plain": "no blocks, plain process pool"}
    lines = ["| " + " | ".join(["", *sides.values()]) + " |", "|---|" + "---|" * len(sides)]
    names = {"demo": "the demo's {} records, pictures decoded", "texts": "{} records of text"}
    for key, name in names.items():
        pool_row = row[key]
        what = name.format(f"{pool_row['rows']:,}")
        lines.append(f"| {what}: s | " + " | ".join(f"{pool_row['seconds'][s]:.1f}" for s in sides) + " |")
        lines.append("| the same: peak GiB | " + " | ".join(f"{pool_row['peak_gib'][s]:.2f}" for s in sides) + " |")
    alone = row["without_main_guard"]
    works = ["yes" if alone[s] else "no" for s in ("ours", "pool")]
    lines.append(f"| a script without a main guard ingests | {works[0]} | {works[1]} | – |")
    return "\n".join(lines) + "\n"


def selecting() -> str:
    """Selection at full size."""
    row = result("select_scale")
    steps = row["steps"]
    less, picks = steps["less"], steps["picks"]
    lines = ["| what | measured | bar |", "|---|---|---|"]
    lines += [
        f"| LESS scores, {row['rows']:,} × 8192 float16 against 57 target means: peak memory, GiB "
        f"| {less['peak_gib']:.2f} | 2 |",
        f"| the same: time ÷ reading the files once with `pyarrow.dataset` ({steps['read']['read_s']:.0f} s) "
        f"| {row['ratio']:.2f} | 2 |",
        f"| picks at 5 budgets by `less`, `xmas` and `stratified`, s | {picks['in_all']:.1f} | 10 |",
    ]
    lines += ["", "| step | " + " | ".join(steps) + " |", "|---|" + "---|" * len(steps)]
    lines.append("| s | " + " | ".join(f"{v['seconds']:.0f}" for v in steps.values()) + " |")
    lines.append("| peak GiB | " + " | ".join(f"{v['peak_gib']:.2f}" for v in steps.values()) + " |")
    return "\n".join(lines) + "\n"


def scienceqa() -> str:
    """What the choices of 1,000 ScienceQA records hold, and how the run went."""
    row = result("scienceqa")
    names, by_value, seconds = row["choices"], row["rows_by_value"], row["stages_s"]
    lines = ["| rows | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for what, counts in row["in_short"].items():
        if not what.startswith("values of"):
            lines.append(f"| {what} | " + " | ".join(f"{n:,}" for n in counts) + " |")
    for field in ("topic", "category", "skill", "grade"):
        cells = [by_value[field][n] for n in names]
        shown = (f"{values} ({least:,}–{most:,})" for values, least, _, most in cells)
        lines.append(f"| values of {field} (rows of the rarest–the commonest) | " + " | ".join(shown) + " |")
    reached = (f"{100 * row['accuracy'][n][0]:.1f}" if n in row["accuracy"] else "–" for n in names)
    commonest = f"commonest answer {100 * row['commonest_answer']:.1f}"
    lines.append(f"| accuracy of the twin, % ({commonest}) | " + " | ".join(reached) + " |")
    lines += ["", "| stage | " + " | ".join(seconds) + " | in all |", "|---|" + "---|" * (len(seconds) + 1)]
    lines.append(f"| s | {' | '.join(f'{v:.0f}' for v in seconds.values())} | {row['seconds']:.0f} |")
    return "\n".join(lines) + "\n"


def training() -> str:
    """Training steps on one GPU and on two."""
    row = result("training")
    bars = {
        "ours / bare": ("one step of ours ÷ one of a bare Hugging Face + PEFT loop", 0.97),
        "compiled / bare": ("the same with `compile: true`", 1.1),
        "two GPUs / one": ("two GPUs of one host ÷ one, ZeRO-2", 1.85),
        "ours / bare, realistic": ("realistic lengths, tokens/s: ours ÷ the bare loop", 1.1),
        "compiled / bare, realistic": ("the same with `compile: true`", "–"),
    }
    lines = ["| what | measured | bar |", "|---|---|---|"]
    lines += [f"| {what} | {row['ratios'][n]:.2f} | {bar} |" for n, (what, bar) in bars.items() if n in row["ratios"]]
    sides = {n: v for n, v in row["rows"].items() if "samples_per_s" in v and "realistic" not in n}
    lines += ["", "| | " + " | ".join(sides) + " |", "|---|" + "---|" * len(sides)]
    lines.append("| samples/s | " + " | ".join(f"{v['samples_per_s']:.1f}" for v in sides.values()) + " |")
    lines.append("| peak memory of a GPU, GB | " + " | ".join(f"{v['peak_gb']:.0f}" for v in sides.values()) + " |")
    return "\n".join(lines) + "\n"


def loading() -> str:
    """A training worker's input."""
    row = result("loading")
    lines = ["| 3,072 rows, 2 CPU cores | " + " | ".join(row["sides"]) + " |", "|---|" + "---|" * len(row["sides"])]
    kinds = {
        "rows_per_s": ("rows/s, second half", ".0f"),
        "epoch_s": ("an epoch with its start, s", ".0f"),
        "resume_s": ("from a start at 60 % of it to the next batch, s", ".1f"),
        "peak_gib": ("peak memory of all processes, GiB", ".1f"),
    }
    for key, (what, form) in kinds.items():
        lines.append(f"| {what} | " + " | ".join(f"{v[key]:{form}}" for v in row["sides"].values()) + " |")
    return "\n".join(lines) + "\n"


def sweep() -> str:
    """What a trial costs beside its training steps."""
    lines = [
        "| machine | one process stays, s a trial | processes of its own, s a trial | ratio | bar, s |",
        "|---|---|---|---|---|",
    ]
    for name, bar in (("sweep_overhead", 3), ("sweep_overhead_gpu", 5)):
        row = result(name)
        warm, cold = row["warm"], row["cold"]
        sides = f"{warm['own']:.1f} ({warm['trials']} trials) | {cold['own']:.1f} ({cold['trials']})"
        lines.append(f"| {row['machine']} | {sides} | {row['ratio']:.0f} | {bar} |")
    return "\n".join(lines) + "\n"


def bookkeeping() -> str:
    """What a thousand trials cost when their trainings take nothing."""
    row = result("sweep_bookkeeping")
    parts = row["seconds"]
    lines = [f"| {row['trials']:,} trials, {row['machine']} | " + " | ".join(parts) + " | in all | bar |"]
    lines += ["|---|" + "---|" * (len(parts) + 2)]
    lines += ["| s a trial | " + " | ".join(f"{v:.4f}" for v in parts.values()) + f" | {row['each']:.2f} | 0.2 |"]
    lines += ["| driver's peak memory, GiB | " + " | " * len(parts) + f"{row['peak_gib']:.1f} | 2 |"]
    return "\n".join(lines) + "\n"


def generation() -> str:
    """Requests per minute of instruction-data generation, with a limit and without."""
    row = result("generation")
    allowed, limited, free = row["allowed_per_minute"], row["limited"], row["without_limit"]
    lines = [
        "| prompts | allowed per minute | held per minute | share | bar | most in any minute | asked by a second run |"
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    shared = f"{limited['pictures']:,} | {allowed:,.0f} | {limited['per_minute']:,.0f} | {row['ratio']:.3f} | 0.95"
    lines += [f"| {shared} | {limited['most_in_a_minute']:,} | {limited['again']['requests']} |"]
    lines += [f"| {free['pictures']:,} | no limit | {free['per_minute']:,.0f} | | | | {free['again']['requests']} |"]
    return "\n".join(lines) + "\n"


def serving() -> str:
    """Batches against one request at a time, and the server under load."""
    lines = [
        "| where | batches | one at a time | ratio | p50, p95 in batches, s | one at a time, s |",
        "|" + "---|" * 6,
    ]
    for name, rate in (
        ("serving", "requests_per_s"),
        ("serving_gpu", "requests_per_s"),
        ("serving_load", "good_per_s"),
    ):
        row = result(name)
        sides = [row[side] for side in ("batched", "alone")]
        rates = (f"{s[rate]:.1f} answers/s, {s['tokens_per_s']:,.0f} tokens/s" for s in sides)
        waits = (f"{s['p50']:.1f}, {s['p95']:.1f}" for s in sides)
        where = f"{row['machine']}, {row['at_a_time']} at a time" + (", under load" if name == "serving_load" else "")
        lines.append(f"| {where} | {' | '.join(rates)} | {row['ratio']:.1f} | {' | '.join(waits)} |")
    load = result("serving_load")["batched"]
    counts, peaks = load["counts"], load["peak_gib"]
    lines += ["", "| accepted | answered | refused | hung up | errors | lost | idle, GiB | peak of each round, GiB |"]
    lost = counts["accepted"] - sum(counts[n] for n in ("answered", "refused", "hung_up", "errors"))
    cells = [f"{counts[n]:,}" for n in ("accepted", "answered", "refused", "hung_up", "errors")]
    cells += [str(lost), f"{load['idle_gib']:.2f}", ", ".join(f"{p:.2f}" for p in peaks)]
    lines += ["|" + "---|" * 8, f"| {' | '.join(cells)} |"]
    return "\n".join(lines) + "\n"


def answers() -> str:
    """Answers per second by length, of each side."""
    row = result("evaluation")
    rates, larger = row["answers_per_s"], row["rows"]["ours, larger"]
    many, more = f"ours, {row['rows']['ours']} rows", f"ours, {larger} rows"
    head = ["new tokens", "official loop", f"`generate`, {row['rows']['generate']} rows", many, more]
    head += ["÷ official", "bar", "÷ `generate`", "bar"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for new, official, batched in ((2, 3.5, 1.0), (16, 16, 1.15), (128, 70, 1.8)):
        sides = [rates[f"{side}, {new}"] for side in ("official", "generate", "ours", f"ours in {larger} rows")]
        ratios = [row["ratios"][f"ours in {larger} rows / {side}, {new} tokens"] for side in ("official", "generate")]
        cells = [
            f"{new}",
            *(f"{s:.2f}" for s in sides),
            f"{ratios[0]:.1f}",
            f"{official}",
            f"{ratios[1]:.2f}",
            f"{batched}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def faults() -> str:
    """What was lost when something died, on a simulated cluster."""
    lines = ["| scenario | of | lost | twice | computed again | ends |", "|---|---|---|---|---|---|"]
    for r in (row for row in result("faults")["rows"] if "of" in row):
        lines.append(
            f"| {r['scenario']} | {r['of']} {r['what']} | {r['lost']} | {r['twice']} | {r['again']} | {r['verdict']} |"
        )
    return "\n".join(lines) + "\n"


def coverage() -> str:
    """How often intervals over few seeds hold the truth."""
    row = result("coverage")
    lines = [
        "| seeds, choices, questions about 500 pictures | difference | accuracy | ratio | bootstrap of seeds, difference |"
    ]
    lines += ["|---|---|---|---|---|"]
    for name, held in row["held"].items():
        cells = [f"{100 * held[kind]:.1f}" for kind in ("difference", "accuracy", "ratio")]
        drawn = held.get("difference, bootstrap")
        lines.append(f"| {name} | {' | '.join(cells)} | {'' if drawn is None else f'{100 * drawn:.1f}'} |")
    return "\n".join(lines) + "\n"


def answer() -> str:
    """The answer of a large sweep."""
    row = result("answer")
    lines = [
        "| 1,000 trials of 5,000 answers | choices | reading, s | headline, s | answer, s | cores worked, s | peak GiB |"
    ]
    lines += ["|" + "---|" * 7]
    for name, side in row["sides"].items():
        cells = [f"{side[n]:.1f}" for n in ("reading", "headline", "answer", "cpu")]
        lines.append(f"| {name} | {side['choices']:,} | {' | '.join(cells)} | {side['peak_gib']:.2f} |")
    return "\n".join(lines) + "\n"


TABLES = {
    "faults": faults,
    "coverage": coverage,
    "answer": answer,
    "answers": answers,
    "generation": generation,
    "serving": serving,
    "pool": pool,
    "workers": workers,
    "select": selecting,
    "gradients": gradients,
    "fidelity": fidelity,
    "trajectories": trajectories,
    "clustering": clustering,
    "training": training,
    "loading": loading,
    "sweep": sweep,
    "bookkeeping": bookkeeping,
    "scienceqa": scienceqa,
}


def filled(text: str) -> str:
    """Return a page with its tables made anew."""
    return BLOCK.sub(lambda m: m[1] + TABLES[m[2]]() + m[3], text)


if __name__ == "__main__":
    page = ROOT / "docs" / "benchmarks.md"
    page.write_text(filled(page.read_text()))
