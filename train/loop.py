"""What every worker of a training runs: DeepSpeed around the loss, step by step, from the last reported state."""

import math
import os
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

import torch

from ..models.adapters import add_adapter
from ..models.components import add_lora, set_trainable
from ..models.mores import add_mores
from ..models.registry import family_of
from ..store.errors import InputError, NotFiniteError, WriteError
from ..store.facts import read_lines
from ..store.files import absolute, append_line, write_json, write_lines
from ..store.machine import writing
from ..store.scratch import Scratch, scratch
from . import live
from .account import Account
from .checkpoint import Extra, gather_moments, load_state, save_model, save_state, seed_step
from .config import TrainConfig
from .data import MicroBatches, cut_refused, on_engine, stream
from .deepspeed_json import deepspeed_json, leave_muon
from .loss import LossModule
from .memory import explain
from .optimizer import lr_factor, make_optimizer
from .restarts import note
from .session import Session
from .stop import leave, raise_left
from .trackers import Tracker, open_trackers
from .validation import Validation

AFTER_NAN = "Lower lr, set grad_clip (1.0, say) or train in float32, in another `out`; the last good state stays here."
LOG, ENGINE, BEST = "log.jsonl", "engine.json", "best"


@dataclass
class Worker:
    """What one worker holds while it trains."""

    config: TrainConfig
    place: Scratch
    session: Session
    engine: Any
    processor: Any
    batches: MicroBatches
    steps: int
    account: Account
    validation: Validation | None = None
    best: float = float("inf")  # the lowest held-out loss
    trackers: list[Tracker] = field(default_factory=list)

    @property
    def out(self) -> str:
        """The local folder that it writes in."""
        return self.place.local

    @property
    def rank(self) -> int:
        """Which of the workers this is."""
        return self.session.rank


def run_worker(config: TrainConfig, out: str, session: Session) -> None:
    """Train from the last state to the last step; every worker of a training calls it.

    Raises:
        OutOfMemoryError: the GPU's memory ran out; says which knobs are left.
        InputError: rows, model or config cannot be used; found by whichever worker met it first.
        NotFiniteError: the loss or a weight became NaN or infinite.
        WriteError: the machine refuses to write what the training leaves.
    """
    raise_left(out)
    torch.set_num_threads(config.threads)
    where = dict[str, Any]()
    try:
        with scratch(out, f"rank{session.rank}") as place:
            worker = _build(config, place, session)
            try:
                _train(worker, where)
            finally:
                live.ended(out)
                session.close(worker.engine)
    except torch.OutOfMemoryError as error:
        explained = explain(config, session.rank, where, error)
        leave(out, explained)
        raise explained from error
    except (InputError, NotFiniteError, WriteError) as error:
        leave(out, error)
        raise


def _train(worker: Worker, where: dict[str, Any]) -> None:
    """Do the steps that are left; `where` tells the caller which one is under way."""
    config, first = worker.config, _restore(worker)
    _cut_log(worker, first)
    cut_refused(worker.out, worker.rank, first)
    live.begun(worker.out)
    worker.trackers = open_trackers(config, worker.out, first, worker.rank)
    if worker.validation is not None:
        worker.best = worker.validation.past(first, worker.engine.device)
    due = set(config.planned_checkpoints(worker.steps))
    start = time.perf_counter()
    if first == 0 and 0 in due:
        _keep(worker, 0)
    for step, batches in _stepwise(worker, first):
        began, done = time.perf_counter(), step + 1
        where["step"] = done
        loss, tokens = _one_step(worker, step, batches, where)
        _log(worker, done, (loss, tokens, time.perf_counter() - began))
        if done in due:
            _keep(worker, done)
        _validate(worker, done)
        if done % config.resume_steps == 0 and done < worker.steps:
            _report_state(worker, done, loss)
    save_model(worker.engine, worker.processor, os.path.join(worker.out, "model"), worker.rank)
    worker.place.put("model")
    for tracker in worker.trackers:
        tracker.close()
    worker.session.report({"step": worker.steps, "seconds": time.perf_counter() - start})


def _build(config: TrainConfig, place: Scratch, session: Session) -> Worker:
    import deepspeed

    leave_muon()
    rank, out = session.rank, place.local
    if not config.use_gpu:
        # an optional shared-memory reduce that DeepSpeed would compile for half a minute; gloo does the work
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    loaded = session.load(config)
    model = loaded.model
    torch.manual_seed(config.seed)  # LoRA's A and MoReS are drawn here: alike on every rank and at every restart
    if config.lora is not None or config.peft is not None:
        model = add_lora(model, config.lora) if config.lora else add_adapter(model, config.peft)
        model.peft_config["default"].base_model_name_or_path = absolute(config.model)
    if config.mores is not None:
        add_mores(model, config.mores).base = absolute(config.model)
    set_trainable(model, config.parts)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    if config.compile:
        for layer in family_of(model).decoder(model).layers:
            layer.compile()
    module = LossModule(model).train()
    optimizer = make_optimizer(list(module.named_parameters()), config)
    deepspeed.init_distributed(dist_backend="nccl" if config.use_gpu else "gloo", verbose=False)
    engine, *_ = deepspeed.initialize(
        model=module, optimizer=optimizer, config=deepspeed_json(config), dist_init_required=False
    )
    batches = MicroBatches(config, out, rank)
    rows = batches.opened()[0].rows
    if rank == 0:
        facts = {
            "engine": type(engine).__name__,
            "zero_stage": engine.zero_optimization_stage(),
            "rows": len(rows.ids),
        }
        facts |= {"world": engine.world_size, "pid": os.getpid()}
        facts["trainable"] = sum(getattr(p, "ds_numel", p.numel()) for p in module.parameters() if p.requires_grad)
        write_json(os.path.join(out, ENGINE), facts)
    steps = config.planned_steps(len(rows.ids))
    account = Account(config, len(rows.ids), steps, engine.device, out)
    worker = Worker(config, place, session, engine, loaded.processor, batches, steps, account)
    if config.validation is not None:
        worker.validation = Validation(config, loaded.processor, out, (rank, engine.world_size))
    return worker


def _restore(worker: Worker) -> int:
    with worker.session.state() as folder:
        return 0 if folder is None else load_state(worker.engine, folder)


def _stepwise(worker: Worker, first: int) -> Any:
    """Yield `(step, its micro-batches)`, prepared ahead."""
    count = worker.config.accumulation
    batches = stream(worker.batches, range(first * count, worker.steps * count))
    for step in range(first, worker.steps):
        yield step, (next(batches) for _ in range(count))


def _one_step(worker: Worker, step: int, batches: Any, where: dict[str, Any]) -> tuple[float, int]:
    seed_step(worker.config.seed, step, worker.rank)
    encoder = worker.batches.opened()[0].encoder
    factor = lr_factor(step, worker.steps, worker.config)
    for group in worker.engine.optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    micro_batches = list(batches)  # all of them: the share of each depends on the tokens of all
    trained = worker.account.add(micro_batches)
    share = worker.config.accumulation * worker.config.workers / max(1, trained)
    total = torch.zeros(2, dtype=torch.float64, device=worker.engine.device)  # loss, tokens
    for batch in micro_batches:
        where["rows"], where["tokens"] = batch["input_ids"].shape
        moved = on_engine(batch, worker.engine, encoder)
        loss = worker.engine(moved, share if worker.config.loss_mean == "step" else None)
        worker.engine.backward(loss)
        worker.engine.step()
        total[0] += loss.detach() / (worker.config.accumulation * worker.config.workers)
        total[1] += int(batch["n_tokens"].sum())
    torch.distributed.all_reduce(total)
    loss, tokens = total.tolist()
    if not math.isfinite(loss):
        raise NotFiniteError(f"the loss of step {step + 1} is {loss}. {AFTER_NAN}")
    return loss, int(tokens)


def _keep(worker: Worker, step: int) -> None:
    """Leave the proxy checkpoint of a step."""
    # every rank gathers the moments: they are spread over all of them
    moments = gather_moments(worker.engine, step, worker.rank) if worker.config.save_moments else None
    path, extra = os.path.join(worker.out, f"checkpoint-{step}"), Extra(moments)
    if worker.config.checkpoint_weights == "trained":
        extra = Extra(moments, absolute(worker.config.model), step)
    save_model(worker.engine, worker.processor, path, worker.rank, extra)
    worker.place.put(f"checkpoint-{step}")
    if worker.rank == 0:  # the new one stands: older ones may go
        kept = set(worker.config.kept_checkpoints(worker.steps, step))
        for old in worker.config.planned_checkpoints(worker.steps):
            if old <= step and old not in kept:
                worker.place.drop(f"checkpoint-{old}")


def _validate(worker: Worker, done: int) -> None:
    """Take the held-out loss when it is due, and keep the model if it is the best so far."""
    spec = worker.config.validation
    if spec is None or worker.validation is None or (done % spec.steps and done < worker.steps):
        return
    loss = worker.validation.loss(worker.engine)
    for tracker in worker.trackers:
        tracker.log(done, {"validation_loss": loss})
    if loss < worker.best and spec.keep_best:
        save_model(worker.engine, worker.processor, os.path.join(worker.out, BEST), worker.rank)
        worker.place.put(BEST)
        if worker.rank == 0:
            write_json(os.path.join(worker.out, f"{BEST}.json"), {"step": done, "loss": loss})
    worker.best = min(worker.best, loss)
    # last: a step in the log has its model
    worker.validation.note(done, loss)
    if worker.rank == 0:
        live.validated(worker.place.home, loss)


def _report_state(worker: Worker, step: int, loss: float) -> None:
    # a gradient that was not finite shows in the weights; such a state must not become the one to go on from
    mine = [getattr(p, "ds_tensor", p).detach() for p in worker.engine.module.parameters() if p.requires_grad]
    if not bool(torch.stack([t.float().norm() for t in mine]).isfinite().all()):
        raise NotFiniteError(f"weights are not finite after step {step}. {AFTER_NAN}")
    worker.place.push()  # the state is of no use without the log of its steps
    with tempfile.TemporaryDirectory() as folder:
        with writing(folder):
            save_state(worker.engine, folder, step, worker.rank)
        with writing(worker.place.home):  # it is copied to there
            worker.session.report({"step": step, "loss": loss}, folder)


def _log(worker: Worker, step: int, done: tuple[float, int, float]) -> None:
    """Write a step's numbers: its loss, tokens and seconds."""
    if worker.rank:
        return
    loss, tokens, seconds = done
    row = {
        "step": step,
        "total_steps": worker.steps,
        "loss": loss,
        "lr": worker.config.lr * lr_factor(step - 1, worker.steps, worker.config),
        "tokens": tokens,
        "seconds": round(seconds, 4),
    }
    if worker.config.use_gpu:
        row["gpu_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    append_line(os.path.join(worker.out, LOG), row)
    live.stepped(worker.place.home, row, worker.config.global_batch)
    worker.place.push_now_and_then()
    for tracker in worker.trackers:
        rates = {"rows_per_second": worker.config.global_batch / seconds, "tokens_per_second": tokens / seconds}
        tracker.log(step, {"loss": loss, "lr": row["lr"]} | rates)


def _cut_log(worker: Worker, first: int) -> None:
    """Drop log rows of steps that will be done again after a restart, which is noted."""
    path = os.path.join(worker.out, LOG)
    if worker.rank or not os.path.isfile(path):
        return
    rows = read_lines(path, "step of a training", "Delete that training's folder, and train again.", step=int)
    note(worker.out, first, rows)
    write_lines(path, [row for row in rows if row["step"] <= first])
