"""What every Ray Train worker runs: DeepSpeed around the loss, step by step, from the last reported state."""

import json
import os
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import torch

from ..models.adapters import add_adapter
from ..models.load import load
from ..models.mores import add_mores
from ..models.parts import add_lora, set_trainable
from .checkpoint import Extra, gather_moments, load_state, save_model, save_state, seed_step
from .config import TrainConfig
from .data import Batches, Rows, prefetch
from .deepspeed_json import deepspeed_json
from .loss import LossModule
from .optimizer import lr_factor, make_optimizer
from .order import Order

LOG, REFUSED, ENGINE = "log.jsonl", "refused", "engine.json"


@dataclass
class Worker:
    """What one worker holds while it trains."""

    config: TrainConfig
    out: str
    rank: int
    engine: Any
    optimizer: torch.optim.Optimizer
    processor: Any
    rows: Rows
    steps: int


def worker_loop(values: dict[str, Any]) -> None:
    """Train from the last state to the last step; called by Ray Train on every worker with plain values."""
    import ray.train

    config, out = TrainConfig.parse(values["config"]), str(values["out"])
    torch.set_num_threads(config.threads)
    context = ray.train.get_context()
    worker = _build(config, out, context.get_world_rank())
    first = _restore(worker)
    _cut_log(worker, first)
    due = set(config.planned_checkpoints(worker.steps))
    start, step = time.perf_counter(), first
    if first == 0 and 0 in due:
        _keep(worker, 0)
    for step, batches in _stepwise(worker, first):
        began = time.perf_counter()
        loss, tokens = _one_step(worker, step, batches)
        done = step + 1
        _log(worker, done, loss, tokens, time.perf_counter() - began)
        if done in due:
            _keep(worker, done)
        if done % config.resume_steps == 0 and done < worker.steps:
            _report_state(worker, done, loss)
    save_model(worker.engine, worker.processor, os.path.join(out, "model"), worker.rank)
    ray.train.report({"step": worker.steps, "seconds": time.perf_counter() - start})


def _build(config: TrainConfig, out: str, rank: int) -> Worker:
    import deepspeed
    import ray.train.torch

    if not config.use_gpu:
        # an optional shared-memory reduce that DeepSpeed would compile for half a minute; gloo does the work
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    device = ray.train.torch.get_device() if config.use_gpu else torch.device("cpu")
    loaded = load(config.model, config.precision, str(device), quantise=config.quantise)
    model = loaded.model
    torch.manual_seed(config.seed)  # LoRA's A and MoReS are drawn here: alike on every rank and at every restart
    if config.lora is not None or config.peft is not None:
        model = add_lora(model, config.lora) if config.lora else add_adapter(model, config.peft)
        model.peft_config["default"].base_model_name_or_path = os.path.abspath(config.model)
    if config.mores is not None:
        add_mores(model, config.mores).base = os.path.abspath(config.model)
    set_trainable(model, config.parts)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    module = LossModule(model).train()
    optimizer = make_optimizer(list(module.named_parameters()), config)
    deepspeed.init_distributed(dist_backend="nccl" if config.use_gpu else "gloo", verbose=False)
    engine, *_ = deepspeed.initialize(
        model=module, optimizer=optimizer, config=deepspeed_json(config), dist_init_required=False
    )
    rows = Rows(config)
    if rank == 0:
        facts = {
            "engine": type(engine).__name__,
            "zero_stage": engine.zero_optimization_stage(),
            "rows": len(rows.ids),
        }
        facts |= {"world": engine.world_size, "pid": os.getpid()}
        facts["trainable"] = sum(getattr(p, "ds_numel", p.numel()) for p in module.parameters() if p.requires_grad)
        with open(os.path.join(out, ENGINE), "w") as sink:
            json.dump(facts, sink)
    return Worker(config, out, rank, engine, optimizer, loaded.processor, rows, config.planned_steps(len(rows.ids)))


def _restore(worker: Worker) -> int:
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        return load_state(worker.engine, folder)


def _stepwise(worker: Worker, first: int) -> Any:
    """Yield `(step, its micro-batches)`; pictures and tokens are prepared ahead by a thread."""
    order = Order(worker.config, worker.rows.has_image, worker.rows.n_chars)
    refused = os.path.join(worker.out, f"{REFUSED}-rank{worker.rank}.jsonl")
    batches = Batches(worker.config, worker.rows, worker.processor, refused)
    count = worker.config.accumulation
    places = ((s, a) for s in range(first, worker.steps) for a in range(count))
    made = prefetch(lambda p: batches.make(order.micro_batch(p[0], p[1], worker.rank)), places)
    for step in range(first, worker.steps):
        yield step, (next(made) for _ in range(count))


def _one_step(worker: Worker, step: int, batches: Any) -> tuple[float, int]:
    seed_step(worker.config.seed, step, worker.rank)
    factor = lr_factor(step, worker.steps, worker.config)
    for group in worker.engine.optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    total = torch.zeros(2, dtype=torch.float64, device=worker.engine.device)  # loss, tokens
    for batch in batches:
        moved = {k: v.to(worker.engine.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        if moved["pixel_values"] is not None:
            moved["pixel_values"] = moved["pixel_values"].to(next(worker.engine.module.parameters()).dtype)
        loss = worker.engine(moved)
        worker.engine.backward(loss)
        worker.engine.step()
        total[0] += loss.detach() / (worker.config.accumulation * worker.config.workers)
        total[1] += int(batch["n_tokens"].sum())
    torch.distributed.all_reduce(total)
    return float(total[0]), int(total[1])


def _keep(worker: Worker, step: int) -> None:
    """Leave the proxy checkpoint of a step."""
    # every rank gathers the moments: they are spread over all of them
    moments = gather_moments(worker.engine, step, worker.rank) if worker.config.save_moments else None
    path, extra = os.path.join(worker.out, f"checkpoint-{step}"), Extra(moments)
    if worker.config.checkpoint_weights == "trained":
        extra = Extra(moments, os.path.abspath(worker.config.model), step)
    save_model(worker.engine, worker.processor, path, worker.rank, extra)


def _report_state(worker: Worker, step: int, loss: float) -> None:
    import ray.train

    with tempfile.TemporaryDirectory() as folder:
        save_state(worker.engine, folder, step, worker.rank)
        ray.train.report({"step": step, "loss": loss}, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _log(worker: Worker, step: int, loss: float, tokens: int, seconds: float) -> None:
    if worker.rank:
        return
    row = {
        "step": step,
        "total_steps": worker.steps,
        "loss": loss,
        "lr": worker.config.lr * lr_factor(step - 1, worker.steps, worker.config),
        "tokens": tokens,
        "seconds": round(seconds, 4),
    }
    with open(os.path.join(worker.out, LOG), "a") as sink:
        sink.write(json.dumps(row) + "\n")


def _cut_log(worker: Worker, first: int) -> None:
    """Drop log rows of steps that will be done again after a restart."""
    path = os.path.join(worker.out, LOG)
    if worker.rank or not os.path.isfile(path):
        return
    with open(path) as source:
        # the last line may be half written
        rows = [line for line in source if line.endswith("}\n") and json.loads(line)["step"] <= first]
    with open(path, "w") as sink:
        sink.writelines(rows)
