"""`train`: one Ray Train run with DeepSpeed, resumable after a killed worker or driver; a finished one does nothing."""

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..models.check import check_model
from ..models.encoding import with_template
from ..models.folders import ADAPTER, MORES, adapter_base, check_folder, facts_of
from ..models.load import load_processor
from ..pool.images import check_root
from ..store.claim import check_out, claim
from ..store.errors import DamagedError, InputError
from ..store.facts import read_as, read_fields, read_lines
from ..store.files import absolute, exists, is_uri, join, open_fs, write_json
from ..store.lock import check_free
from ..store.names import place_in
from ..store.usage import Usage
from . import restarts
from .config import TrainConfig
from .data import REFUSED, Rows, count_cut, cut_refused, make_encoder, refusals, rows_digest
from .environment import environment
from .loop import BEST, ENGINE, LOG
from .recipe import FREE
from .stop import failed, forget
from .trackers import check_trackers
from .validation import LOG as VALIDATION
from .validation import count_rows, held_out
from .worker import worker_loop

REPORT, CONFIG = "train.json", "config.json"
# beside the config's own fields in what is saved: the digest of the ids
ROWS = "ids of the rows"
_ANEW = "Delete that training's folder, and train again."


@dataclass(frozen=True)
class Kept:
    """A proxy checkpoint: its step, folder, and the mean learning rate since the one before (LESS's weight)."""

    step: int
    path: str
    lr: float


@dataclass
class TrainReport:
    """What a training left. `curve` holds (step, loss, lr) of every step; `seconds` are those of the steps alone.

    `validation`: (step, loss) of the held-out rows, `held_out` what became of them (rows, those left out because they are
    trained on, refusals by reason); `best`: the folder of the model of the lowest, `best_step` its step.
    `refused` rows could not be used, `refused_reasons` says why; `cut_off` rows lost a part of their answers at `max_len`.
    `gpu_gb`: the most memory that worker 0's tensors took on its GPU, in 10⁹ bytes. `restarts`: as `restarts.read`.
    """

    model: str
    steps: int
    rows: int
    loss: float
    seconds: float
    wall_seconds: float
    rows_per_second: float
    tokens: int
    refused: int
    refused_reasons: dict[str, int] = field(default_factory=dict)
    cut_off: int = 0
    engine: dict[str, Any] = field(default_factory=dict)
    checkpoints: list[Kept] = field(default_factory=list)
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    held_out: dict[str, Any] = field(default_factory=dict)
    best: str | None = None
    best_step: int | None = None
    gpu_gb: float | None = None
    restarts: list[tuple[int, int]] = field(default_factory=list)

    def lines(self, max_len: int) -> list[str]:
        """Return what became of all rows, for the terminal."""
        said = [self.usage.line()]
        if self.restarts:
            said.append(restarts.told(self.restarts))
        if self.cut_off:
            said.append(f"{self.cut_off:,} rows lost a part of their answers at max_len {max_len}")
        if self.held_out and self.validation:
            lost = sum(self.held_out["refused"].values())
            listed = join(os.path.dirname(self.model), f"validation-{REFUSED}-rank*.jsonl")
            step, loss = min(self.validation, key=lambda v: v[1])
            line = Usage(self.held_out["rows"] - lost, self.held_out["refused"], listed).line()
            said.append(f"held out: {line}; loss {loss:.4f} at best, after step {step}")
            if self.held_out["trained_on"]:
                said.append(
                    f"{self.held_out['trained_on']:,} rows of the validation pool are trained on, so left out of it"
                )
        return said

    @property
    def usage(self) -> Usage:
        """What became of the rows that were asked for."""
        return Usage(
            self.rows - self.refused, self.refused_reasons, join(os.path.dirname(self.model), f"{REFUSED}-rank*.jsonl")
        )

    @classmethod
    def read(cls, out: str) -> "TrainReport":
        """Read a finished training's report.

        Raises:
            InputError: it is not finished.
            DamagedError: it names a model or checkpoint that is not in `out`.
        """
        path, out = join(out, REPORT), absolute(out)
        read = read_as(path, cls, "report of a training", _ANEW)
        kept = [replace(k, path=place_in(out, k.path, path)) for k in read.checkpoints]
        best = None if read.best is None else place_in(out, read.best, path)
        return replace(read, model=place_in(out, read.model, path), best=best, checkpoints=kept)


def train(
    config: TrainConfig, out: str, callbacks: Sequence[Any] = (), fit: Callable[[TrainConfig, str], None] | None = None
) -> TrainReport:
    """Train and return the report; `out` must be a folder that all workers reach (a shared one on several nodes).

    `fit` does the steps; without it, Ray Train, whose `callbacks` are told of them.

    Raises:
        BusyError: another process trains into `out`.
        InputError: `out` holds another training, what no training made, or a model or pool that is to be read; model, pool
            or picks are missing or do not fit each other; no rows.
        InputError: more rows than `max_refused` could not be used, or none; found while training.
        VinnowError: the workers failed more often than `max_failures`.
    """
    check_out(out, _given(config))
    out, config = absolute(out), _whole(config)
    if exists(join(out, REPORT)):
        _refuse_other(config, out)
        return TrainReport.read(out)
    _check_inputs(config)
    with claim(out, "train", re.escape(LOG)):  # a config.json lies in every model folder
        return _train(config, out, fit or (lambda config, out: _fit(config, out, callbacks)))


def _whole(config: TrainConfig) -> TrainConfig:
    config = config.absolute()
    return with_template(config, config.model)


def _given(config: TrainConfig) -> list[str | None]:
    held = config.validation.pool if config.validation else None
    return [config.model, config.pool, config.picks, held]


def _train(config: TrainConfig, out: str, fit: Callable[[TrainConfig, str], None]) -> TrainReport:
    # before the first step there is nothing to mix with: numbers that did not fit a GPU may be mended
    if exists(join(out, CONFIG)) and exists(join(out, LOG)):
        _refuse_other(config, out)
    forget(out)
    if not exists(join(out, LOG)):  # nothing is kept of an earlier try: its refusals are tried again
        for rank in range(config.workers):
            cut_refused(out, rank, -1)
    write_json(join(out, CONFIG), _identity(config))
    start = time.perf_counter()
    fit(config, out)
    report = _collect(config, out, time.perf_counter() - start)
    write_json(join(out, REPORT), asdict(report))
    return report


def refuse_early(config: TrainConfig, out: str) -> None:
    """Refuse what `train` would refuse before its first step: for callers that start Ray themselves. Errors: as there."""
    check_out(out, _given(config))
    check_free(out)
    out, config = os.path.abspath(out), _whole(config)
    if exists(join(out, REPORT)):
        _refuse_other(config, out)
    else:
        _check_inputs(config)


def _fit(config: TrainConfig, out: str, callbacks: Sequence[Any]) -> None:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    from .trainer import Trainer

    # threads are only a hint to torch: a worker asks Ray for one CPU, so that trials can share a small machine
    resources = {"CPU": 1.0, "GPU": 1.0} if config.use_gpu else {"CPU": 1.0}
    fs, storage = open_fs(out)
    trainer = Trainer(
        worker_loop,
        train_loop_config={"config": config.model_dump(mode="json"), "out": out},
        scaling_config=ScalingConfig(
            num_workers=config.workers, use_gpu=config.use_gpu, resources_per_worker=resources
        ),
        torch_config=TorchConfig(backend="nccl" if config.use_gpu else "gloo"),
        run_config=RunConfig(
            name="ray",  # the same name in the same folder: a rerun goes on from the last reported state
            storage_path=storage,
            storage_filesystem=fs if is_uri(out) else None,
            failure_config=FailureConfig(max_failures=config.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            worker_runtime_env={"env_vars": environment(config.threads, config.use_gpu)},
            callbacks=list(callbacks),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:
        raise failed(out, error) from error


def _collect(config: TrainConfig, out: str, wall: float) -> TrainReport:
    log, held = read_log(join(out, LOG)), _validated(join(out, VALIDATION))
    if not log:
        raise DamagedError(f"{join(out, LOG)!r} holds no step. {_ANEW}")
    steps = log[-1]["step"]
    seconds = sum(row["seconds"] for row in log)
    kept, before = [], 0
    for step in config.planned_checkpoints(steps):
        rates = [row["lr"] for row in log if before < row["step"] <= step]
        kept.append(Kept(step, join(out, f"checkpoint-{step}"), sum(rates) / max(1, len(rates))))
        before = step
    standing = config.kept_checkpoints(steps)
    engine = read_fields(join(out, ENGINE), "engine's description", _ANEW, rows=int)
    last = log[-config.log_steps :]
    refused = refusals(out)
    name = join(out, f"{BEST}.json")
    best = read_fields(name, "note of the best model", _ANEW, step=int) if exists(name) else None
    return TrainReport(
        model=join(out, "model"),
        steps=steps,
        rows=engine["rows"],
        loss=sum(row["loss"] for row in last) / len(last),
        seconds=round(seconds, 3),
        wall_seconds=round(wall, 3),
        rows_per_second=round(steps * config.global_batch / seconds, 2),
        tokens=sum(row["tokens"] for row in log),
        refused=len(refused),
        refused_reasons=dict(Counter(refused.values())),
        cut_off=count_cut(out),
        engine=engine,
        checkpoints=[k for k in kept if k.step in standing],
        curve=[(row["step"], row["loss"], row["lr"]) for row in log],
        validation=[(row["step"], row["loss"]) for row in held],
        held_out=_held_out(config, out),
        best=join(out, BEST) if best else None,
        best_step=best["step"] if best else None,
        gpu_gb=max((row["gpu_gb"] for row in log if "gpu_gb" in row), default=None),
        restarts=restarts.read(out),
    )


def _held_out(config: TrainConfig, out: str) -> dict[str, Any]:
    if config.validation is None:
        return {}
    _, rows, left_out = held_out(config)
    lost = refusals(out, f"validation-{REFUSED}")
    return {"rows": count_rows(config, rows), "trained_on": left_out, "refused": dict(Counter(lost.values()))}


def read_log(path: str) -> list[dict[str, Any]]:
    """Return the steps of a training's log; none where there is no log yet.

    Raises:
        DamagedError: a line is none of ours; names it.
    """
    kinds = {"step": int, "loss": float, "lr": float, "tokens": int, "seconds": float, "gpu_gb": float | None}
    rows = read_lines(path, "step of a training", _ANEW, **kinds) if exists(path) else []
    return [{k: v for k, v in row.items() if v is not None} for row in rows]


def _validated(path: str) -> list[dict[str, Any]]:
    return read_lines(path, "validation", _ANEW, step=int, loss=float) if exists(path) else []


def _check_inputs(config: TrainConfig) -> None:
    """Find what is missing or does not fit here, not on a worker ten seconds later."""
    folder = check_folder(config.model)
    if "lora" in config.parts and (folder / ADAPTER).is_file():
        raise InputError(
            f"{config.model!r} is a LoRA adapter already; another one cannot be put on it. "
            f"Give its base ({str(adapter_base(folder))!r}) as model, or merge the adapter into it first."
        )
    if (folder / MORES).is_file():
        raise InputError(
            f"{config.model!r} is a model with MoReS, which a training cannot build on: its steering depends on positions "
            f"and cannot be merged. Give the model underneath ({facts_of(folder, MORES)['base']!r})."
        )
    check_model(config.model)
    check_trackers(list(config.trackers))
    if config.validation is not None:
        held_out(config)
    rows = Rows(config)
    if not len(rows.ids):
        raise InputError(f"{config.picks or config.pool}: there are no rows to train on.")
    if config.idle(len(rows.ids)):
        raise InputError(
            "a training of one step would train nothing: warm-up begins at a rate of 0. Set warmup_ratio: 0."
        )
    if rows.has_image.any():
        check_root(config.image_root or rows.pool.image_root, f"pool {config.pool!r}")
    # the encoder itself says what a tokenizer, processor or template cannot do
    make_encoder(config, load_processor(config.model))


def _identity(config: TrainConfig) -> dict[str, Any]:
    """Return what makes a training this one: its config, and the content of its rows, which a path does not tell."""
    return config.model_dump(mode="json", exclude=set(FREE)) | {ROWS: rows_digest(config)}


def _refuse_other(config: TrainConfig, out: str) -> None:
    before, now = read_as(join(out, CONFIG), dict[str, Any], "config of a training", _ANEW), _identity(config)
    changed = [f"{k}: was {before.get(k)!r}, is {now.get(k)!r}" for k in now if before.get(k) != now[k]]
    if changed:
        raise InputError(
            f"{out} holds a training with another config: {'; '.join(changed)}. Use another folder, or delete it."
        )
