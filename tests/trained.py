"""A tiny model with LoRA and projector, trained a few real steps: by torch's AdamW here, or as a script by DeepSpeed."""

import os
import sys

import torch
from batches import make_batch
from vinnow.models.components import add_lora, canonical, component_of, set_trainable
from vinnow.models.load import load
from vinnow.models.specs import LoraSpec
from vinnow.train.config import TrainConfig
from vinnow.train.loss import LossModule
from vinnow.train.optimizer import make_optimizer

STEPS, KINDS = 3, ("exp_avg", "exp_avg_sq")
STAGES = {1: (0, 1, 2, 3), 2: (1, 2, 3), 3: (3,)}  # of each world size; only three ranks cut unevenly


def prepare(tiny_model, dtype="float32", parts=("projector", "lora")):
    """Return the model, a batch for it, and its trained parameters by canonical name, in the model's order."""
    torch.manual_seed(0)
    model = load(tiny_model, dtype).model
    if "lora" in parts:
        model = add_lora(model, LoraSpec(r=3, alpha=6, dropout=0.0))
    set_trainable(model, list(parts))
    batch = make_batch(model.get_base_model() if "lora" in parts else model)
    batch["media"] = {n: v.to(next(model.parameters()).dtype) for n, v in batch["media"].items()}
    return model, batch, {canonical(n): p for n, p in model.named_parameters() if p.requires_grad}


def layout(trained, kind):
    """Return param groups as these trainers make them."""
    split = lambda d, p=None: [  # noqa: E731
        q
        for n, q in trained.items()
        if d == (not n.endswith("bias") and "norm" not in n) and p in (None, component_of(n) == "projector")
    ]
    return {
        "one": [{"params": list(trained.values())}],
        "huggingface": [{"params": split(d), "weight_decay": 0.1 * d} for d in (True, False)],
        "llava": [{"params": split(d, p), "weight_decay": 0.1 * d} for p in (False, True) for d in (True, False)],
    }[kind]


def adamw(model, batch, groups, steps=STEPS):
    """Train by torch's AdamW with betas and eps of its own, and return it."""
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.85, 0.99), eps=1e-7)
    module = LossModule(model).train()
    for _ in range(steps):
        optimizer.zero_grad()
        module(batch).backward()
        optimizer.step()
    return optimizer


def run_deepspeed(tiny_model, out, world):
    """Train by every ZeRO stage, save checkpoints, and beside each what DeepSpeed itself says of its moments."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    for stage in STAGES[world]:
        model, batch, trained = prepare(tiny_model)
        config = TrainConfig(model=tiny_model, pool="-", parts=["projector", "lora"], lora=LoraSpec())
        module = LossModule(model).train()
        settings = {"stage": stage, "stage3_param_persistence_threshold": 100, "overlap_comm": False}
        engine, *_ = deepspeed.initialize(
            model=module,
            optimizer=make_optimizer(list(module.named_parameters()), config),
            config={
                "train_batch_size": world,
                "train_micro_batch_size_per_gpu": 1,
                "zero_optimization": settings,
                "zero_allow_untested_optimizer": True,
                "zero_force_ds_cpu_optimizer": False,
            },
            dist_init_required=False,
        )
        for _ in range(STEPS):
            engine.backward(engine(batch))
            engine.step()
        engine.save_checkpoint(f"{out}/stage{stage}")
        if stage in (1, 2):  # after all groups have stepped: see train/checkpoint.py
            engine.optimizer._hp_optimizer_states_linked = False
            engine.optimizer._lazy_init_hp_params_optimizer_state()
        truth = {k: {n: _state(engine, p, k) for n, p in trained.items()} for k in KINDS}
        if engine.global_rank == 0:
            torch.save(truth, f"{out}/stage{stage}/truth.pt")


def _state(engine, parameter, kind):
    from deepspeed.utils import safe_get_full_optimizer_state

    if engine.zero_optimization_stage() == 0:
        return engine.optimizer.state[parameter][kind].clone()
    return safe_get_full_optimizer_state(parameter, kind).clone()


def run_worlds(tiny_model, out, port):
    """Run every world, one forked process a rank: what they need is imported once, before any thread is there."""
    import deepspeed  # noqa: F401

    torch.set_num_threads(1)
    for world in STAGES:
        ranks = []
        for rank in range(world):
            child = os.fork()
            if not child:
                place = {"WORLD_SIZE": world, "RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port + world}
                os.environ.update({"MASTER_ADDR": "127.0.0.1"} | {k: str(v) for k, v in place.items()})
                folder = f"{out}/world{world}"
                os.makedirs(folder, exist_ok=True)
                run_deepspeed(tiny_model, folder, world)
                os._exit(0)
            ranks.append(child)
        if any(os.waitpid(rank, 0)[1] for rank in ranks):
            sys.exit(f"a rank of world {world} failed")


if __name__ == "__main__":
    run_worlds(sys.argv[1], sys.argv[2], int(sys.argv[3]))
