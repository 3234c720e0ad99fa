"""The dry run: what would run, on what, how many rows, bytes and steps. Nothing is written and no Ray starts."""

import math
from dataclasses import dataclass, field
from typing import Any

import yaml
from rich.table import Table

from ..pool.ingest import IngestConfig
from ..pool.json_stream import iter_records
from ..select.run import budget_rows
from ..store.files import exists, join, read_json
from .config import RunConfig, eval_config, train_config
from .progress import console

_BYTES = {"float16": 2, "float32": 4}


@dataclass
class Planned:
    """One line of the plan; `bytes` is what it leaves on disk, `steps` optimizer steps."""

    stage: str
    what: str
    rows: int
    steps: int = 0
    bytes: int = 0
    on: str = ""
    done: bool = False
    config: dict[str, Any] = field(default_factory=dict)


def make_plan(run: RunConfig) -> list[Planned]:
    """List what `vinnow run` would do, with the config that each stage would receive.

    Raises:
        InputError: a source is missing, or a budget does not fit the pool.
    """
    rows = {n: count_rows(run, n) for n in ("pool", "captions", "target", "test") if getattr(run, n) is not None}
    plan = [_line(run, f"ingest-{n}", getattr(run, n).source, r, config=getattr(run, n)) for n, r in rows.items()]
    if run.model.twin is not None:
        plan.append(_line(run, "twin", "build a tiny LLaVA", 0, config=run.model.twin))
    for stage in run.warmup:
        plan.append(_training(run, f"warmup-{stage.name}", stage.train, rows[stage.data]))
    proxy = _training(run, "proxy", run.proxy, rows["pool"])
    plan.append(proxy)
    points = train_config(run.proxy, "proxy").planned_checkpoints(proxy.steps)
    for config in run.features:
        for out, pool in (("features", "pool"), ("targets", "target")):
            if pool == "pool" or (config.kind == "gradient" and pool in rows):
                n = rows[pool] * len(points)
                what = f"{config.kind}, dim {config.dim}, {len(points)} checkpoints"
                line = _line(run, f"{out}-{config.kind}", what, n, config=config)
                line.bytes, line.on = n * config.dim * _BYTES[config.dtype], _actors(run)
                line.config["actors"] = run.actors.model_dump(mode="json")
                plan.append(line)
    for selector in run.selectors:
        wanted = ", ".join(f"{b} = {budget_rows(b, rows['pool'])}" for b in run.budgets)
        plan.append(
            _line(run, "select", f"{selector.name}: {wanted}; seeds {run.seeds}", rows["pool"], config=selector)
        )
    plan += _sweep(run, rows)
    return plan


def print_plan(plan: list[Planned]) -> None:
    """Print the plan as a table, then the config of each stage as YAML."""
    table = Table("stage", "what", "rows", "steps", "bytes", "on", "state", title="vinnow plan")
    for line in plan:
        table.add_row(
            line.stage,
            line.what,
            f"{line.rows:,}",
            f"{line.steps:,}" if line.steps else "",
            _size(line.bytes) if line.bytes else "",
            line.on,
            "done" if line.done else "to do",
        )
    console.print(table)
    for line in plan:
        console.print(f"[bold]{line.stage}[/]")
        console.print(yaml.safe_dump(line.config, sort_keys=False), markup=False)


def count_rows(run: RunConfig, name: str) -> int:
    """Return a pool's rows: from its manifest if it is ingested, else by streaming through its source."""
    done = join(run.out, name, "pool.json")
    if exists(done):
        return int(read_json(done)["rows"])
    config: IngestConfig = getattr(run, name)
    return sum(1 for _ in iter_records(config.source))


def _training(run: RunConfig, name: str, section: dict[str, Any], rows: int) -> Planned:
    config = train_config(section, name, seed=run.seed)
    line = _line(run, name, f"train {', '.join(config.parts)}, ZeRO-{config.zero_stage}", rows, config=config)
    line.steps = config.planned_steps(rows)
    line.on = f"{config.workers} × {'GPU' if config.use_gpu else 'CPU'}"
    return line


def _sweep(run: RunConfig, rows: dict[str, int]) -> list[Planned]:
    chosen = [(s.name, str(b), budget_rows(b, rows["pool"])) for s in run.selectors for b in run.budgets]
    if run.sweep.full:
        chosen.append(("full", "100%", rows["pool"]))
    lines = []
    for name, label, n in chosen:
        line = _training(run, f"sweep-{name}-{label}", run.finetune, n)
        line.what += f" on {name} {label}, {len(run.seeds)} seed(s); evaluate {rows['test']} questions"
        line.config |= {
            "evaluate": eval_config(run.evaluate).model_dump(mode="json"),
            "sweep": run.sweep.model_dump(),
        }
        line.config |= {"seeds": run.seeds}
        line.steps *= len(run.seeds)
        lines.append(line)
    return lines


def _line(run: RunConfig, stage: str, what: str, rows: int, config: Any) -> Planned:
    done = exists(join(run.out, "stages", f"{stage}.json"))
    extra = {"seed": run.seed, "out": run.out, "ray": run.ray.model_dump()}
    return Planned(stage, what, rows, done=done, config=config.model_dump(mode="json") | {"run": extra})


def _actors(run: RunConfig) -> str:
    a = run.actors
    return f"{a.actors} actors × {a.gpus_per_actor or a.cpus_per_actor:g} {'GPU' if a.gpus_per_actor else 'CPU'}"


def _size(n: int) -> str:
    power = min(int(math.log(max(n, 1), 1000)), 4)
    return f"{n / 1000**power:.1f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
