"""AdamW with LLaVA's parameter groups, and the learning rate as a pure function of the step."""

import math
from typing import Any

import torch

from ..models.components import component_of
from .config import TrainConfig


def make_optimizer(named: list[tuple[str, torch.nn.Parameter]], config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters in up to four groups: decay × projector (spec: LLaVA §5).

    MoReS's parameters are a fifth, never decayed: its R is the direction of a parameter, whatever its length. Biases and
    norms are not decayed. `base_lr` in each group is its peak learning rate.
    """
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    steered = []
    for name, parameter in named:
        if parameter.requires_grad and component_of(name) == "mores":
            steered.append(parameter)
        elif parameter.requires_grad:
            key = (parameter.ndim > 1, component_of(name) == "projector")
            groups.setdefault(key, []).append(parameter)
    built: list[dict[str, Any]] = []
    for (decays, projector), parameters in sorted(groups.items(), reverse=True):
        lr = config.projector_lr if projector and config.projector_lr else config.lr
        decay = config.weight_decay if decays else 0.0
        built.append({"params": parameters, "lr": lr, "base_lr": lr, "weight_decay": decay})
    if steered:
        lr = config.mores_lr or config.lr
        built.append({"params": steered, "lr": lr, "base_lr": lr, "weight_decay": 0.0})
    # one kernel for all of a group; what is offloaded is updated on the host, where the loop over tensors is slower still
    fused = config.use_gpu or config.offload != "none"
    return torch.optim.AdamW(built, lr=config.lr, betas=(0.9, 0.999), eps=1e-8, fused=fused)


def lr_factor(step: int, steps: int, config: TrainConfig) -> float:
    """Return the share of the peak learning rate at optimizer step `step` (0-based) of `steps`.

    Hugging Face's schedules to the last digit: the rate of the very first step of a warm-up is 0.
    """
    warmup = math.ceil(config.warmup_ratio * steps)
    if step < warmup:
        return step / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if config.schedule == "cosine":
        return max(0.0, 0.5 * (1 + math.cos(math.pi * done)))
    return max(0.0, 1 - done) if config.schedule == "linear" else 1.0
