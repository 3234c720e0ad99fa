"""The plan as people and programs read it: what it comes to first, then each stage, prices, and each stage's config."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import yaml
from rich.table import Table

from ..progress import show
from .config import RunConfig
from .stage import Planned


@dataclass(frozen=True)
class Summary:
    """What a plan comes to; hours of one GPU unless they are `wall_hours`, which all of a stage's devices work.

    `selection`: proxy and features; `everything`: one fine-tune on the whole pool, None where nothing is priced; `total`:
    all stages. `wall_hours`: None where a priced stage runs on CPUs. `money`: `total` at `plan.gpu_hour_price`. `bytes`:
    left on disk. `questions`: what models are asked, each question once a model. `left`: the same figures of what is still
    to be done, by their names. `too_large`: stages still to be done whose memory is over `plan.gpu_memory_gb`; `unpriced`:
    why some have no price.
    """

    total: float
    selection: float
    everything: float | None
    wall_hours: float | None
    money: float | None
    bytes: int
    questions: int
    left: dict[str, float | None]
    too_large: list[str]
    unpriced: list[str]


def summarise(run: RunConfig, plan: list[Planned]) -> Summary:
    """Add a plan up."""
    priced = [line for line in plan if line.price is not None and line.price.row]
    total = sum(_hours_of(line) for line in priced)
    card = run.plan.gpu_memory_gb
    limit = math.inf if card is None else card * 1e9
    rest = sum(_hours_of(line, left=True) for line in priced)
    return Summary(
        total=total,
        selection=sum(_hours_of(line) for line in priced if line.choosing),
        everything=_everything(run, plan),
        wall_hours=_wall(run, priced),
        money=_money(run, total),
        bytes=sum(line.bytes for line in plan),
        questions=sum(line.questions for line in plan),
        left={
            "total": rest,
            "wall_hours": _wall(run, priced, left=True),
            "money": _money(run, rest),
            "bytes": round(sum(line.bytes * line.left for line in plan)),
            "questions": sum(line.questions_left for line in plan),
        },
        too_large=[
            does_not_fit(line.stage, line.price.memory, limit)
            for line in priced
            if line.price and line.price.memory > limit and line.left
        ],
        unpriced=sorted({text for line in plan if line.price and not line.price.row for text in line.price.how}),
    )


def plan_json(run: RunConfig, plan: list[Planned]) -> dict[str, Any]:
    """Return the plan as plain values: `summary`, and `stages` in order."""
    return {"out": run.out, "summary": asdict(summarise(run, plan)), "stages": [asdict(line) for line in plan]}


def print_plan(run: RunConfig, plan: list[Planned]) -> None:
    """Print what the plan comes to, its stages, their prices, then the config of each stage as YAML."""
    for text in _summary_lines(run, summarise(run, plan)):
        show(text)
    table = Table("stage", "what", "rows", "steps", "bytes", "on", "state", title="vinnow plan")
    for line in plan:
        table.add_row(
            line.stage,
            line.what,
            f"{line.rows:,}",
            f"{line.steps:,}" if line.steps else "",
            size_text(line.bytes) if line.bytes else "",
            line.on,
            line.state,
        )
    show(table)
    for line in plan:
        if line.note:
            show(f"- {line.stage}: {line.note}")
    _print_prices([line for line in plan if line.price is not None])
    for line in plan:
        price = {"TFLOP per row": line.price.row} if line.price else {}
        show(f"{line.stage}\n{yaml.safe_dump(line.config | price, sort_keys=False)}")


def size_text(n: float) -> str:
    """Return bytes as people write them."""
    power = min(int(math.log(max(n, 1), 1000)), 4)
    return f"{n / 1000**power:.1f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def hours_text(hours: float) -> str:
    """Return hours with two digits."""
    return f"{hours:,.2f}" if hours >= 0.01 else "< 0.01"


def _summary_lines(run: RunConfig, summary: Summary) -> list[str]:
    lines = [] if run.devices is None else [f"computing on {run.devices}"]
    begun = summary.left != {n: getattr(summary, n) for n in summary.left}
    rest = {n: hours_text(v) for n, v in summary.left.items() if v is not None and begun}
    in_all = f"{hours_text(summary.total)} GPU-hours in all" + (f", {rest['total']} of them left" if begun else "")
    lines += [f"{run.out}: {in_all}, {size_text(summary.bytes)} on disk"]
    if summary.everything:
        share = f"{summary.selection / summary.everything:.0%} of it"
        against = f"training on everything once takes {hours_text(summary.everything)}"
        lines.append(f"selection (proxy, features) takes {hours_text(summary.selection)} GPU-hours, {share}: {against}")
    lines.append(
        "wall time: not known where stages run on CPUs (GPU-hours are one GPU's)"
        if summary.wall_hours is None
        else f"wall time: {hours_text(summary.wall_hours)} hours{_left_text(rest.get('wall_hours'))} on the devices below, "
        "without evaluation and start-up"
    )
    if summary.money is None:
        lines.append("money: give the price of a GPU-hour with --set plan.gpu_hour_price=2.5")
    else:
        money = "" if not begun else f", {summary.left['money']:,.2f} of it left,"
        lines.append(f"money: {summary.money:,.2f}{money} at {run.plan.gpu_hour_price:g} per GPU-hour")
    if begun:
        lines.append(f"questions: {summary.questions:,} asked in all, {summary.left['questions']:,} of them left")
    if run.plan.gpu_memory_gb is None:
        lines.append("memory: not compared with a card; name its size with --set plan.gpu_memory_gb=80")
    lines += [f"does not fit: {text}" for text in summary.too_large]
    return lines + summary.unpriced


def _left_text(hours: str | None) -> str:
    return "" if hours is None else f", {hours} of them left,"


def _money(run: RunConfig, hours: float) -> float | None:
    return None if run.plan.gpu_hour_price is None else hours * run.plan.gpu_hour_price


def _hours_of(line: Planned, left: bool = False) -> float:
    """Return a line's GPU-hours, or those of them that are still to come."""
    return 0.0 if line.price is None else line.price.hours * (line.left if left else 1)


def _everything(run: RunConfig, plan: list[Planned]) -> float | None:
    """Return the GPU-hours of one fine-tune on the whole pool: its own line's, else those of a choice, by rows."""
    rows = next((line.rows for line in plan if line.stage == "ingest-pool"), 0)
    trials = [
        line for line in plan if line.within == "sweep" and line.price and line.price.row and line.rows and line.count
    ]
    if not trials or not rows:
        return None
    whole = max(trials, key=lambda line: line.rows)
    return _hours_of(whole) / whole.count * rows / whole.rows


def _wall(run: RunConfig, priced: list[Planned], left: bool = False) -> float | None:
    if any("GPU" not in line.on for line in priced):
        return None
    trials = [line for line in priced if line.within == "sweep"]
    stages = [line for line in priced if line.within != "sweep"]
    beside = min(run.sweep.concurrent, max(1, sum(line.count for line in trials)))
    alone, shared = (sum(_hours_of(n, left) / n.devices for n in some) for some in (stages, trials))
    return alone + shared / beside


def does_not_fit(stage: str, need: float, limit: float) -> str:
    """Return what to say of a stage that needs more bytes than a card has."""
    features = stage.split("-")[0] in ("features", "targets")
    knobs = "token_budget or checkpoints_per_pass" if features else "micro_batch, gradient_checkpointing, zero_stage 3"
    return f"{stage} needs {size_text(need)} a GPU at least, of {size_text(limit)}: smaller batches ({knobs})"


def _print_prices(plan: list[Planned]) -> None:
    begun = any(line.left < 1 for line in plan)
    more = ["left"] * begun
    table = Table("stage", "tokens per row", "TFLOP per row", "TFLOP", "GPU-hours", *more, "GPU memory", title="prices")
    # what stages share is said once, under the table
    notes: dict[str, list[str]] = {}
    for line in plan:
        price = line.price
        assert price is not None
        shown = (
            f"{price.tokens:,.0f}",
            f"{sum(price.row.values()):.3g}",
            f"{price.tflop:,.0f}" if price.tflop >= 10 else f"{price.tflop:.3g}",
            hours_text(price.hours),
            *([hours_text(_hours_of(line, left=True)) if line.left else "0"] * begun),
            size_text(price.memory),
        )
        table.add_row(line.stage, *(shown if price.row else "?" * len(shown)))
        for text in price.how:
            notes.setdefault(text, []).append(line.stage)
    show(table)
    for text, stages in notes.items():
        show(f"- {text}: {', '.join(stages)}")
    show("- Evaluation, pads and reading pictures are not priced; GPU memory is a lower estimate.")
