"""A GPU that ran out of memory: what is said of it."""

from typing import Any

import torch

from .config import TrainConfig
from .stop import OutOfMemoryError


def advice(config: TrainConfig) -> list[str]:
    """Return what would take less GPU memory, what costs least first; only what this config does not do yet."""
    said = []
    if not config.gradient_checkpointing:
        said.append("gradient_checkpointing: true (a third more time)")
    if config.micro_batch > 1:
        half = next(n for n in range(config.micro_batch // 2, 0, -1) if config.micro_batch % n == 0)
        said.append(f"micro_batch: {half} (global_batch stays {config.global_batch})")
    whole = "language_model" in config.parts
    if config.zero_stage < 3 and config.workers > 1 and config.quantise is None and not config.compile:
        said.append("zero_stage: 3 (weights are spread over the workers)")
    if whole and config.zero_stage and config.offload == "none":
        said.append("offload: optimizer (AdamW's state in the host's memory)")
    if config.zero_stage == 3 and config.offload != "parameters":
        said.append("offload: parameters")
    if "lora" in config.parts and config.quantise is None and config.zero_stage < 3:
        said.append("quantise: nf4 (the frozen language model in 4 bits)")
    if whole:
        said.append("LoRA instead of the whole language model (parts: [projector, lora])")
    return [*said, f"max_len below {config.max_len}"]


def explain(config: TrainConfig, rank: int, where: dict[str, Any], error: Exception) -> OutOfMemoryError:
    """Return the error to raise for a worker's `torch.OutOfMemoryError`.

    `where` says what was under way: `step`, and `rows` and `tokens` (the longest row's) of the last micro-batch.
    """
    total = f"{torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB, " if torch.cuda.is_available() else ""
    doing = "the model was loaded" if not where else f"step {where['step']} was under way"
    batch = f"; micro-batch {where['rows']} rows, the longest {where['tokens']} tokens" if "rows" in where else ""
    return OutOfMemoryError(
        f"GPU memory ran out on worker {rank} while {doing} ({total}{str(error).split('. GPU')[0]}{batch}). "
        f"To take less: {'; '.join(advice(config))}."
    )
