"""The report's sections: each turns its part of `ReportData` into what its template shows; None: it is not there."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...select.protocol import ScoreMeans
from ...store.arrays import Array
from .about import about_section, hours
from .answer_shown import cost_section, sees_of
from .charts import GREY, Chart, Frame, Point, Series, bar_chart, colors, fit, histogram, line_chart, small_chart
from .composition import composition_section
from .data import FULL, RANDOM, Gallery, ReportData, Trajectories
from .explorer.sections import explorer_section, map_section, overlap_section, shares_section
from .headline import Row, adjusted_p, caveats, findings, of_whole, percent, signed
from .hours import Held
from .markup import Cell, Table
from .pictures import Card, card

Values = dict[str, Any]
BINS, CLUSTERS, REFUSED_ROWS, SOURCES = 60, 12, 400, 6
HOURS = (
    "Hours: seconds × the GPUs (or the cores) that Ray kept for trainings, features and evaluations; at most, since actors "
    "may be fewer. What an attempt that was cut off had used may be missing."
)
RELATIVE = (
    "Of the whole pool: the score in per cent of the model's that was trained on all of it, averaged over benchmarks where "
    "there are several."
)
NOTE = (
    "Accuracy on {questions} test questions about {pictures} pictures (one without counts as one); those that could not be "
    "asked count as wrong. Intervals are of 95 %, by t over pictures and, where there are several, over seeds (pooled over "
    "the choices of a budget). Against random: difference in points at the same budget, on the same questions. p, adjusted "
    "by Holm for the {compared} comparisons of this table: of random signs of pictures (McNemar's test for one question a "
    "picture) and of t over seeds and pictures, the larger. “Could see”: the smallest difference that 8 of 10 such "
    "comparisons would have told. “Not told apart” means that 0 is inside of the interval, or that p is 0.05 or more."
)
# letters of a reference line's name, before its number
NAMES = 30
# how a gallery's two lists may be called, by what the selector's scores say
TITLES: dict[ScoreMeans, tuple[str, str]] = {
    "worth": ("Taken, best first", "Passed over, lowest score first"),
    "order": ("Taken, in the order of picking", "Passed over, lowest score first"),
    "chance": ("Taken (a sample, as drawn)", "Passed over (a sample, as drawn)"),
}


def headline_section(data: ReportData, rows: list[Row]) -> Values | None:
    """The table of all choices and, in sentences, what it shows."""
    if not rows:
        return None
    tasks, pictured = sorted({t for r in rows for t in r.by_task}), any(r.pictured is not None for r in rows)
    relative = any(r.relative is not None for r in rows)
    head = [
        "selector",
        "budget",
        "rows",
        "accuracy %",
        "95 %",
        *tasks,
        *(["with a picture %"] if pictured else []),
        *(["of the whole pool %"] if relative else []),
        "against random",
        "p (Holm)",
        "could see",
        "verdict",
        "train s",
    ]
    lines: list[list[Any]] = []
    if data.majority:
        shares = [percent(data.majority.by_task.get(t, 0.0)) for t in tasks]
        blank = [""] * (pictured + relative + 5)
        lines.append(["commonest answer", "–", "0", percent(data.majority.overall), "", *shares, *blank])
    for r in rows:
        span = f"{percent(r.accuracy.low)} – {percent(r.accuracy.high)}"
        kind = r.against_random.verdict.replace(" ", "-") if r.against_random else ""
        lines.append(
            [
                r.name,
                r.budget + (f" × {r.seeds} seeds" if r.seeds > 1 else ""),
                f"{r.rows:,}",
                Cell(percent(r.accuracy.estimate)),
                span,
                *(percent(r.by_task.get(t, 0.0)) for t in tasks),
                *(["" if r.pictured is None else percent(r.pictured)] if pictured else []),
                *([of_whole(r)] if relative else []),
                signed(r),
                adjusted_p(r),
                sees_of(r),
                Cell(r.word, "verdict", kind) if r.word else "",
                f"{r.seconds:,.1f}",
            ]
        )
    questions = rows[0].questions
    numeric = set(range(2, len(head))) - {len(head) - 2}
    compared = sum(r.against_random is not None for r in rows)
    note = NOTE.format(questions=f"{questions:,}", pictures=f"{rows[0].clusters:,}", compared=compared)
    note = " ".join([note, *([RELATIVE] if relative else []), *caveats(rows)])
    table = Table("Every choice, and what it reached", head, lines, numeric)
    return {"findings": findings(rows, data) if data.answer else [], "table": table, "note": note}


def accuracy_section(data: ReportData, rows: list[Row]) -> Values | None:
    """Accuracy by budget, one line a selector, with the whole pool and the majority as reference lines."""
    chosen = [r for r in rows if r.selector != FULL]
    if not chosen:
        return None
    budgets = list(dict.fromkeys(r.budget for r in chosen))
    names = list(dict.fromkeys(r.name for r in chosen))
    series = [
        Series(name, colors(names)[name], [_accuracy_point(r, budgets) for r in chosen if r.name == name])
        for name in names
    ]
    lines = [
        (
            f"{fit(r.name.replace(FULL, 'whole pool', 1), NAMES)} {percent(r.accuracy.estimate)}",
            100 * r.accuracy.estimate,
        )
        for r in rows
        if r.selector == FULL
    ]
    if data.majority:
        lines.append((f"commonest answer {percent(data.majority.overall)}", 100 * data.majority.overall))
    heights = [v for s in series for p in s.points for v in (p.low, p.high)] + [v for _, v in lines]
    pad = max(2.0, 0.08 * (max(heights) - min(heights)))
    frame = Frame(
        "chart-accuracy",
        "Accuracy by budget",
        "; ".join(f"{r.name} {r.budget}: {percent(r.accuracy.estimate)} %" for r in chosen),
        "budget (share of the pool, or rows)",
        "accuracy (% of the questions)",
        max(0.0, min(heights) - pad),
        min(100.0, max(heights) + pad),
    )
    labels = [f"{b} ({next(r.rows for r in chosen if r.budget == b):,} rows)" for b in budgets]
    caption = "Whiskers: 95 % interval of each accuracy."
    if frame.low > 0:
        caption += " The axis does not start at 0."
    return {"chart": line_chart(frame, labels, series, lines), "caption": caption}


def picked_section(data: ReportData, rows: list[Row]) -> Values | None:
    """What each selector took, by task, beside the pool's own shares."""
    if not data.picked:
        return None
    tasks = sorted(data.pool_tasks, key=lambda t: -data.pool_tasks[t])
    whole = sum(data.pool_tasks.values())
    palette = colors([p.selector for p in data.picked])
    budgets: list[tuple[Chart, str, Table]] = []
    for budget in dict.fromkeys(p.budget for p in data.picked):
        group = [p for p in data.picked if p.budget == budget]
        shares = {"pool": (GREY, data.pool_tasks)} | {p.selector: (palette[p.selector], p.by_task) for p in group}
        series, lines = [], []
        for name, (color, counts) in shares.items():
            total = sum(counts.values()) or 1
            values = [100 * counts.get(t, 0) / total for t in tasks]
            # the pool is the yardstick of this chart; random, its copy, is left to the table
            if name != RANDOM:
                series.append(Series(name, color, [Point(i, v, v, v) for i, v in enumerate(values)]))
            lines.append([name, f"{total:,}", *(f"{v:.1f}" for v in values)])
        top = max(p.y for s in series for p in s.points)
        words = "; ".join(f"{line[0]}: " + ", ".join(f"{t} {v} %" for t, v in zip(tasks, line[2:])) for line in lines)
        axes = ("task (name)", "share of the rows (%)")
        name = f"chart-picks-{len(budgets)}"
        frame = Frame(name, f"Picks by task at {budget}", words, *axes, 0.0, top * 1.05 or 1.0)
        caption = f"Share of each task among the rows taken at {budget}."
        numeric = set(range(1, len(tasks) + 2))
        table = Table(f"Share of each task in % at {budget}", ["selector", "rows", *tasks], lines, numeric)
        budgets.append((bar_chart(frame, tasks, series), caption, table))
    return {"rows": f"{whole:,}", "notes": data.notes, "diagnoses": _diagnoses(data), "budgets": budgets}


def _diagnoses(data: ReportData) -> Table | None:
    """What each selector's scores had nothing to tell of: rows of score 0, rows without a feature, empty clusters."""
    if not data.diagnoses:
        return None
    lines = []
    for selector, d in data.diagnoses.items():
        known = (d.zero_features, d.clusters, d.empty_clusters)
        lines.append([selector, f"{d.rows:,}", f"{d.zero_scores:,}", *("–" if n is None else f"{n:,}" for n in known)])
    head = ["selector", "rows scored", "score 0", "no feature (all zeros)", "clusters", "empty clusters"]
    return Table(
        "What the scores say of themselves (rows; at the checkpoint that has most)", head, lines, {1, 2, 3, 4, 5}
    )


def trajectories_section(data: ReportData, rows: list[Row]) -> Values | None:
    """Small multiples: the median trajectory of the largest clusters, with its quartiles."""
    trajectories = data.trajectories
    if trajectories is None or not len(trajectories.sizes):
        return None
    order = np.argsort(-trajectories.sizes, kind="stable")[:CLUSTERS]
    span = (float(trajectories.low_CT[order].min()), float(trajectories.high_CT[order].max()))
    axes = ("training of the proxy (steps)", "sum of singular values (no unit)")
    clusters: list[tuple[Chart, str]] = []
    for c in order:
        title = f"cluster {c}: {int(trajectories.sizes[c]):,} rows"
        curves = (trajectories.median_CT[c], trajectories.low_CT[c], trajectories.high_CT[c])
        lines = [row.astype(float).tolist() for row in curves]
        taken = ", ".join(f"{b}: {int(counts[c])}" for b, counts in trajectories.picked.items())
        caption = f"taken {taken}" if taken else ""
        words = "median by checkpoint: " + ", ".join(f"{v:.4g}" for v in lines[0])
        frame = Frame(f"chart-cluster-{c}", title, words, *axes, *span)
        clusters.append((small_chart(frame, trajectories.steps, lines[0], (lines[1], lines[2])), caption))
    note = (
        "Sum of the largest singular values of a record's cross-modal attention by checkpoint of the proxy: "
        f"median and quartiles of the {len(order)} largest of {len(trajectories.sizes)} clusters, on one scale "
        f"({span[0]:.4g} to {span[1]:.4g})."
    )
    sizes, caption = _sizes(trajectories.sizes)
    table = _clusters(trajectories, order)
    return {"clusters": clusters, "note": note, "sizes": sizes, "sizes_caption": caption, "table": table}


def _sizes(sizes: Array) -> tuple[Chart, str]:
    """How many clusters have how many rows: the chart and its caption."""
    filled = sizes[sizes > 0]
    counts, edges = np.histogram(filled, bins=min(BINS, max(5, len(filled) // 4)))
    middle, empty = float(np.median(filled)), len(sizes) - len(filled)
    words = (
        f"{len(filled):,} clusters of {filled.min():,} to {filled.max():,} rows, median {middle:,.0f}; {empty:,} empty"
    )
    axes = ("size of a cluster (rows)", "clusters (number)")
    frame = Frame("chart-cluster-sizes", "Cluster sizes", words, *axes, 0.0, float(counts.max()) * 1.3)
    lines = [(f"median {middle:,.0f}", middle)]
    chart = histogram(frame, edges.tolist(), counts.tolist(), lines, "clusters")
    return chart, f"Cluster sizes: {words}."


def _clusters(trajectories: Trajectories, order: Array) -> Table:
    """What the largest clusters hold by source, beside the whole pool, and how many of their rows were taken."""
    names = list(trajectories.sources)
    shown, rest = names[:SOURCES], names[SOURCES:]
    lines: list[list[Any]] = []
    for title, chosen in [("all with an image", slice(None)), *((f"cluster {c}", slice(c, c + 1)) for c in order)]:
        rows = int(trajectories.sizes[chosen].sum())
        counts = [int(trajectories.sources[n][chosen].sum()) for n in shown]
        if rest:
            counts.append(sum(int(trajectories.sources[n][chosen].sum()) for n in rest))
        taken = [f"{int(picked[chosen].sum()):,}" for picked in trajectories.picked.values()]
        lines.append([title, f"{rows:,}", *taken, *(f"{100 * n / max(rows, 1):.1f}" for n in counts)])
    sources = [f"{n} %" for n in shown] + ([f"{len(rest)} others %"] if rest else [])
    head = ["cluster", "rows", *(f"taken at {b}" for b in trajectories.picked), *sources]
    return Table("What the largest clusters hold, by source", head, lines, set(range(1, len(head))))


def similarity_section(data: ReportData, rows: list[Row]) -> Values | None:
    """Each scoring selector's scores over the pool, with the lowest score that each budget took."""
    if not data.similarity:
        return None
    charts: list[tuple[Chart, str]] = []
    for one in data.similarity:
        scores_N = np.asarray(one.scores_N, np.float64)
        counts, edges = np.histogram(scores_N, bins=BINS)
        lines = [(f"{b}: taken from {v:.4g}", float(v)) for b, v in one.thresholds.items()]
        words = f"{len(scores_N):,} scores from {edges[0]:.4g} to {edges[-1]:.4g}; " + "; ".join(n for n, _ in lines)
        frame = Frame(
            f"chart-scores-{len(charts)}",
            f"Scores of {one.selector}",
            words,
            "score (no unit)",
            "pool (rows)",
            0.0,
            float(counts.max()) * 1.3,
        )
        caption = f"Scores that {one.selector} gave to the pool's rows; lines: where each budget ends."
        charts.append((histogram(frame, edges.tolist(), counts.tolist(), lines), caption))
    return {"charts": charts}


def pictures_section(data: ReportData, rows: list[Row]) -> Values | None:
    """The records that each selector took first, and those that it passed over last."""
    if not data.galleries:
        return None
    return {"galleries": [_gallery(g) for g in data.galleries]}


def refused_section(data: ReportData, rows: list[Row]) -> Values | None:
    """Every refused row by reason; the first ones in full."""
    if not data.refused:
        return None
    pools: list[tuple[str, Table | None, Table | None]] = []
    for name, refused in data.refused.items():
        if not refused.num_rows:
            pools.append((name, None, None))
            continue
        counts = refused.group_by("reason").aggregate([([], "count_all")]).sort_by([("count_all", "descending")])
        lines = [[r["reason"], f"{r['count_all']:,}"] for r in counts.to_pylist()]
        reasons = Table(f"{name}: {refused.num_rows:,} refused rows", ["reason", "rows"], lines, {1})
        shown = _some_of_each(refused, [line[0] for line in lines])
        details = [[r["reason"], "–" if r["row"] < 0 else f"{r['row']:,}", r["detail"]] for r in shown]
        title = _refused_title(refused.num_rows, len(shown), len(lines))
        pools.append((name, reasons, Table(title, ["reason", "input row", "detail"], details, {1})))
    return {"pools": pools}


def _some_of_each(refused: pa.Table, reasons: list[str]) -> list[dict[str, Any]]:
    """Return the first rows of each reason, as many of each as there is room for."""
    each = max(2, REFUSED_ROWS // len(reasons))
    return [
        r for reason in reasons for r in refused.filter(pc.equal(refused["reason"], reason)).slice(0, each).to_pylist()
    ]


def _refused_title(rows: int, shown: int, reasons: int) -> str:
    return f"All {rows:,}" if shown == rows else f"{shown:,} of {rows:,}: the first of each of {reasons:,} reasons"


def stages_section(data: ReportData, rows: list[Row]) -> Values | None:
    """Seconds, rows, rows per second, bytes and GPU- or CPU-hours of every stage."""
    if not data.stages:
        return None
    total = sum(s.seconds for s in data.stages) or 1.0
    spent = Held.total(s.held for s in data.stages if s.held is not None)
    kinds = [name for name in ("gpu", "cpu") if getattr(spent, name)]
    several = any(s.starts > 1 for s in data.stages)
    lines = []
    for s in data.stages:
        share = Cell(kind="bar", share=100 * s.seconds / total)
        # its rows are what there is now, and not what each start did
        speed = f"{s.rows / s.seconds:,.1f}" if s.rows and s.seconds and s.starts == 1 else "–"
        starts = [str(s.starts), "–" if s.last is None else f"{s.last:,.1f}"] if several else []
        size = "–" if s.size is None else f"{s.size / 1e6:,.1f}"
        used = [hours(getattr(s.held, kind, None)) for kind in kinds]
        rows_done = "–" if s.rows is None else f"{s.rows:,}"
        lines.append([s.name, f"{s.seconds:,.1f}", *starts, rows_done, speed, size, *used, share])
    whole = (Cell(hours(getattr(spent, kind))) for kind in kinds)
    lines.append([Cell("all"), Cell(f"{total:,.1f}"), *[""] * (5 if several else 3), *whole, ""])
    names = [f"{kind.upper()}-hours" for kind in kinds]
    starts = ["starts", "seconds of the last"] if several else []
    head = ["stage", "seconds of all starts" if several else "seconds", *starts]
    head += ["rows", "rows/s", "MB written", *names, "share of the time"]
    table = Table("What each stage took, by the wall clock", head, lines, set(range(1, len(head) - 1)))
    ways = [f"{s.name}: {rows:,} rows ran by {way}." for s in data.stages for way, rows in s.ran.items()]
    return {"table": table, "notes": [*([HOURS] if kinds else []), *ways]}


def _accuracy_point(row: Row, budgets: list[str]) -> Point:
    a = row.accuracy
    return Point(budgets.index(row.budget), 100 * a.estimate, 100 * a.low, 100 * a.high)


def _gallery(one: Gallery) -> Values:
    lists: list[tuple[str, list[Card]]] = []
    for title, records in zip(TITLES[one.means], (one.picked, one.passed), strict=True):
        if records:
            lists.append((title, [card(r, scored=one.means != "chance") for r in records]))
    title = f"{one.selector} at {one.budget}"
    return {"title": title, "lists": lists, "text_left_out": one.text_left_out, "none_passed": not one.passed}


Section = tuple[str, str, Callable[[ReportData, list[Row]], Values | None], str]
SECTIONS: tuple[Section, ...] = (
    ("headline", "What each choice reached", headline_section, "No fine-tune has been evaluated yet."),
    ("accuracy", "Accuracy by budget", accuracy_section, "No selection has been evaluated yet."),
    ("cost", "What it cost", cost_section, "No trial has recorded what it held, or the run did not save its config."),
    ("picked", "What each selector took", picked_section, "No picks have been made yet."),
    (
        "composition",
        "What was chosen, by field",
        composition_section,
        "Records have no subject, topic, skill or grade.",
    ),
    ("overlap", "What selectors share", overlap_section, "There are not two choices to compare."),
    ("shares", "What each takes, against the pool", shares_section, "No picks have been made yet."),
    ("map", "A map of the pool", map_section, "The run has no features of two numbers or more."),
    ("explorer", "Records", explorer_section, "No picks have been made yet."),
    ("trajectories", "Trajectories by cluster", trajectories_section, "No selector clustered trajectories."),
    ("similarity", "Scores and thresholds", similarity_section, "No selector scored by similarity."),
    ("pictures", "Records taken and passed over", pictures_section, "No picks have been made yet."),
    ("refused", "Refused rows", refused_section, "No list of refused rows was found."),
    ("stages", "Time", stages_section, "No stage has finished yet."),
    ("about", "About this run", about_section, "There is no run.json, in which a run saves its config."),
)


def absent(data: ReportData, missing: list[str]) -> list[tuple[str, str]]:
    """Return the title of each of the `missing` sections, and in a sentence why it is not there."""
    return [(title, data.absent.get(name, why)) for name, title, _, why in SECTIONS if name in missing]
