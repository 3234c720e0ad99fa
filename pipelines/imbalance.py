"""`vinnow evaluate --benchmark imbalance`: measure, and draw LMAR and visual mass by layer: `imbalance.html`."""

import os
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ..actors.cluster import RayConfig, ensure_ray
from ..evaluate.config import IMBALANCE, ImbalanceConfig
from ..evaluate.imbalance import REPORT, measure
from ..store.errors import DamagedError, InputError
from ..store.facts import read_fields
from ..store.files import exists, join, write_bytes
from ..store.reading import with_fields
from .progress import bar
from .report.build import document
from .report.charts import COLORS, Chart, Frame, Point, Series, band_chart
from .report.markup import Table, render

CURVES = ("lmar", "lmar_low", "lmar_high", "mass", "mass_low", "mass_high", "ratio_of_means")
PAGE = "imbalance.html"
CHOICES = (
    "Queries: the positions whose outputs chose the generated tokens, end mark included. Attention: mean over heads and "
    "queries. Image: all image tokens. Text: the question's own tokens (no BOS, system prompt, role words). LMAR: mean "
    "over rows of image attention per token / text attention per token. Rows without a picture are left out."
)


@dataclass(frozen=True)
class Measured:
    """One checkpoint's `imbalance.json`, under the name of its folder."""

    name: str
    report: dict[str, Any]


def run_imbalance(values: dict[str, Any], out: str, beside: list[str], ray: RayConfig) -> str:
    """Measure a checkpoint, draw it with earlier outputs `beside` it; return what to tell the user.

    Raises:
        InputError: see `evaluate.imbalance.measure`; or a folder beside it was measured on another pool, or not at all.
    """
    if len(beside) >= COLORS:
        raise InputError(f"--beside: at most {COLORS - 1} other outputs fit into one plot, not {len(beside)}.")
    others = [_read(folder) for folder in beside]
    config = ImbalanceConfig.parse(values)
    ensure_ray(ray)
    with bar(IMBALANCE, "parts") as tell:
        report = measure(config, out, tell)
    path = draw(out, others)
    skipped = f", {report.refused} left out {report.reasons}" if report.refused else ""
    return f"mean LMAR {report.lmar:.4f}, visual mass {report.mass:.4f} ({report.rows} rows{skipped}); {path}"


def draw(out: str, others: list[Measured]) -> str:
    """Write `OUT/imbalance.html`: two charts and a table of the measurement in `out` and of others; return its path.

    Raises:
        InputError: another one was measured on another pool.
    """
    mine = _read(out)
    for other in others:
        if other.report["key"]["pool"] != mine.report["key"]["pool"]:
            raise InputError(
                f"--beside {other.name}: it was measured on another pool ({other.report['key']['pool']} against "
                f"{mine.report['key']['pool']}): other rows, other curves. Measure both on one pool."
            )
    path = join(out, PAGE)
    write_bytes(path, document("Modality imbalance", page([mine, *others])).encode())
    return path


def page(measured: list[Measured]) -> Markup:
    """Return the page's body."""
    names = _distinct([m.name for m in measured])
    share = ("Visual attention mass by layer", "attention on the picture (share of 1)")
    charts = [
        (
            _chart(measured, names, "lmar", ("LMAR by layer", "LMAR (ratio)")),
            "Band: 95 % of bootstraps over rows. 1: balanced.",
        ),
        (_chart(measured, names, "mass", share), "The share of attention that falls on image tokens, of 1."),
    ]
    head = ["Checkpoint", "Rows", "Left out", "LMAR", "Ratio of means", "Visual mass", "Generated with"]
    rows = [_row(name, m.report) for name, m in zip(names, measured, strict=True)]
    tasks = [
        [f"{name}: {task}", m.report["rows_by_task"][task], *map(_mean, (curve["lmar"], curve["mass"]))]
        for name, m in zip(names, measured, strict=True)
        for task, curve in m.report["by_task"].items()
    ]
    tables = [
        Table("Means over layers", head, rows, {1, 2, 3, 4, 5}),
        Table("By task", ["Checkpoint: task", "Rows", "LMAR", "Visual mass"], tasks, {1, 2, 3}),
    ]
    return render("imbalance", choices=CHOICES, charts=charts, tables=tables)


def _chart(measured: list[Measured], names: list[str], what: str, called: tuple[str, str]) -> Chart:
    """Draw one of the curves; `called`: its title, and its name with its unit."""
    series = []
    for number, (name, m) in enumerate(zip(names, measured, strict=True)):
        curve = m.report["curve"]
        bands = zip(curve[what], curve[f"{what}_low"], curve[f"{what}_high"], strict=True)
        series.append(Series(name, number, [Point(x, *values) for x, values in enumerate(bands)]))
    top = max(p.high for one in series for p in one.points)
    lines = [("balanced", 1.0)] if what == "lmar" else []
    high = 1.08 * max(top, 1.0 if lines else 0.0)
    words = "; ".join(f"{one.name}: " + ", ".join(f"{p.y:.3g}" for p in one.points) for one in series)
    title, label = called
    frame = Frame(f"chart-{what}", title, words, "layer of the decoder (number)", label, 0.0, high)
    return band_chart(frame, max(len(one.points) for one in series), series, lines)


def _row(name: str, report: dict[str, Any]) -> list[Any]:
    curve, key = report["curve"], report["key"]
    how = f"{key['template']}, at most {key['max_new_tokens']} tokens, {key['precision']}"
    means = [_mean(curve[n]) for n in ("lmar", "ratio_of_means", "mass")]
    return [name, report["rows"], report["refused"], *means, how]


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.4f}"


def _read(folder: str) -> Measured:
    if not exists(join(folder, REPORT)):
        raise InputError(
            f"{folder!r} holds no finished imbalance measurement ({REPORT}). Make one with "
            f"`vinnow evaluate --benchmark {IMBALANCE} --out {folder}`."
        )
    return Measured(folder if "://" in folder else os.path.abspath(folder), _read_report(join(folder, REPORT)))


def _read_report(path: str) -> dict[str, Any]:
    curve = dict[str, list[float]]
    kinds = {"key": dict[str, Any], "rows": int, "refused": int, "curve": curve, "by_task": dict[str, curve]}
    report = read_fields(path, "imbalance measurement", "Measure again.", rows_by_task=dict[str, int], **kinds)
    keys = dict.fromkeys(("pool", "template", "max_new_tokens", "precision"), Any)
    report["key"] = with_fields(report["key"], keys, path, "imbalance measurement")
    for one in (report["curve"], *report["by_task"].values()):
        if not all(one.get(n) for n in CURVES):
            raise DamagedError(f"{path!r} is no imbalance measurement: a curve lacks one of {CURVES}. Measure again.")
    return report


def _distinct(paths: list[str]) -> list[str]:
    """Return the shortest ends of the paths that tell them apart."""
    parts = [p.rstrip("/").split("/") for p in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-length:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return paths
