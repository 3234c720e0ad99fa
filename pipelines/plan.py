"""The dry run: what would run, on what, how many rows, bytes and steps, and its price. Nothing is written, no Ray."""

from dataclasses import dataclass, field, replace
from typing import Any

from ..actors.config import FeatureConfig
from ..actors.kind import kind_of
from ..models.check import check_model
from ..select.run import budget_rows
from ..store.files import exists, join
from ..train.config import TrainConfig
from .config import RunConfig, eval_config, finetunes, train_config, where_of
from .prices import Price, Prices
from .samples import Sample, look

_BYTES = {"float16": 2.0, "float32": 4.0, "int8": 1.0, "bit1": 1 / 8}


@dataclass
class Planned:
    """One line of the plan; `bytes` is what it leaves on disk, `steps` optimizer steps; `price` where it computes.

    `note`: what the user should know of its rows. `devices`: GPUs or CPU workers that share the work, as `on` says.
    """

    stage: str
    what: str
    rows: int
    steps: int = 0
    bytes: int = 0
    on: str = ""
    done: bool = False
    price: Price | None = None
    config: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    devices: int = 1

    def times(self, n: int) -> None:
        """Count the stage `n` times over (a sweep's seeds)."""
        self.steps, self.bytes = self.steps * n, self.bytes * n
        if self.price is not None:
            self.price = replace(self.price, tflop=self.price.tflop * n, hours=self.price.hours * n)


def make_plan(run: RunConfig) -> list[Planned]:
    """List what `vinnow run` would do, with the config that each stage would receive and what it would cost.

    Raises:
        InputError: a source or the model is missing, or a budget does not fit the pool.
    """
    if run.model.path is not None:
        check_model(run.model.path)
    names = [n for n in ("pool", "captions", "target", "test") if getattr(run, n) is not None]
    samples: dict[str, Sample] = {n: look(getattr(run, n), join(run.out, n)) for n in names}
    rows = {n: s.rows for n, s in samples.items()}
    prices = Prices(run, samples)
    plan = [_line(run, f"ingest-{n}", getattr(run, n).source, r, config=getattr(run, n)) for n, r in rows.items()]
    for line, name in zip(plan, names, strict=True):
        line.note = _rows_note(samples[name], getattr(run, name).max_refused)
    if run.model.twin is not None:
        plan.append(_line(run, "twin", "build a tiny LLaVA", 0, config=run.model.twin))
    for stage in run.warmup:
        config = train_config(stage.train, f"warmup-{stage.name}", seed=run.seed)
        plan.append(_training(run, f"warmup-{stage.name}", config, prices, stage.data))
        prices.advance(config)
    proxy = None if run.proxy is None else train_config(run.proxy, "proxy", seed=run.seed)
    if proxy is not None:
        plan.append(_training(run, "proxy", proxy, prices, "pool"))
    for feature in run.features:
        plan += _features(run, feature, prices, proxy)
    for selector in run.selectors:
        wanted = ", ".join(f"{b} = {budget_rows(b, rows['pool'])}" for b in run.budgets)
        plan.append(
            _line(run, "select", f"{selector.label}: {wanted}; seeds {run.seeds}", rows["pool"], config=selector)
        )
    plan += _sweep(run, prices)
    return plan


def _rows_note(sample: Sample, max_refused: float) -> str:
    """Say what ingest refused, or would; a sample's share is only an estimate, so it ends nothing here."""
    usage = sample.usage
    if not usage.refused:
        return ""
    if sample.origin == "the pool":
        return usage.line()
    over = f"; over max_refused ({max_refused:.1%}), so ingest would stop" if usage.lost > max_refused else ""
    return f"of a sample, {usage.line()}{over}"


def _features(run: RunConfig, config: FeatureConfig, prices: Prices, proxy: TrainConfig | None) -> list[Planned]:
    points, lines = 1, []
    if proxy is not None:
        points = len(proxy.kept_checkpoints(proxy.planned_steps(prices.samples["pool"].rows)))
    for out, pool in (("features", "pool"), ("targets", "target")):
        if pool == "pool" or (kind_of(config).of_targets and pool in prices.samples):
            stored = kind_of(config).for_targets() if pool == "target" else config
            n, dim = prices.samples[pool].rows * points, prices.dim(config)
            line = _line(
                run, f"{out}-{config.name}", f"{config.kind}, dim {dim}, {points} checkpoints", n, config=config
            )
            line.bytes, line.on = int(n * dim * _BYTES[stored.dtype]), _actors(run)
            line.devices = run.actors.actors
            line.config["actors"] = run.actors.model_dump(mode="json")
            line.price = prices.feature(config, pool, points, proxy)
            lines.append(line)
    return lines


def _training(
    run: RunConfig, name: str, config: TrainConfig, prices: Prices, pool: str, rows: int | None = None
) -> Planned:
    rows = prices.samples[pool].rows if rows is None else rows
    line = _line(run, name, f"train {', '.join(config.parts)}, ZeRO-{config.zero_stage}", rows, config=config)
    line.steps = config.planned_steps(rows)
    line.bytes = prices.disk(config, line.steps)
    line.on = f"{config.workers} × {'GPU' if config.use_gpu else 'CPU'}"
    line.devices = config.workers
    line.price = prices.training(config, pool, line.steps * config.global_batch)
    return line


def _sweep(run: RunConfig, prices: Prices) -> list[Planned]:
    rows = {n: s.rows for n, s in prices.samples.items()}
    chosen = [(s.label, str(b), budget_rows(b, rows["pool"])) for s in run.selectors for b in run.budgets]
    if run.sweep.full:
        chosen.append(("full", "100%", rows["pool"]))
    lines = []
    for variant, section in finetunes(run.finetune).items():
        config = train_config(section, where_of(variant), seed=run.seed)
        for name, label, n in chosen:
            stage = f"sweep-{name}-{label}" + (f"-{variant}" if variant else "")
            line = _training(run, stage, config, prices, "pool", n)
            line.what += f" on {name} {label}, {len(run.seeds)} seed(s); evaluate {rows['test']} questions"
            line.config |= {
                "evaluate": eval_config(run.evaluate).model_dump(mode="json"),
                "sweep": run.sweep.model_dump(),
            }
            line.config |= {"seeds": run.seeds}
            line.times(len(run.seeds))
            lines.append(line)
    return lines


def _line(run: RunConfig, stage: str, what: str, rows: int, config: Any) -> Planned:
    done = exists(join(run.out, "stages", f"{stage}.json"))
    extra = {"seed": run.seed, "out": run.out, "ray": run.ray.model_dump()}
    return Planned(stage, what, rows, done=done, config=config.model_dump(mode="json") | {"run": extra})


def _actors(run: RunConfig) -> str:
    a = run.actors
    return f"{a.actors} actors × {a.gpus_per_actor or a.cpus_per_actor:g} {'GPU' if a.gpus_per_actor else 'CPU'}"
