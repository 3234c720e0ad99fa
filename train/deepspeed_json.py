"""DeepSpeed's configuration, made from TrainConfig and nowhere else, and what it shall not do when it starts."""

import importlib
from typing import Any

from .config import TrainConfig


def deepspeed_json(config: TrainConfig) -> dict[str, Any]:
    """Return the dict for `deepspeed.initialize`; LLaVA's zero2/zero3 settings (spec: LLaVA §5), sizes from the config."""
    zero: dict[str, Any] = {"stage": config.zero_stage}
    if config.zero_stage >= 2:
        zero |= {
            # alone there is nobody to talk to, and the second stream only takes turns with the first
            "overlap_comm": config.use_gpu and config.workers > 1,
            "contiguous_gradients": True,
            "reduce_bucket_size": 50_000_000,
        }
    if config.zero_stage in (1, 2) and not config.grad_clip and config.offload == "none":
        # a norm that nobody reads: some launches for each parameter
        zero["compute_grad_norm"] = False
    if config.zero_stage == 3:
        zero |= {"stage3_param_persistence_threshold": 100_000, "stage3_prefetch_bucket_size": 50_000_000}
        zero |= {
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    if config.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": config.use_gpu}
    if config.offload == "parameters":
        zero["offload_param"] = {"device": "cpu", "pin_memory": config.use_gpu}
    return {
        "train_batch_size": config.global_batch,
        "train_micro_batch_size_per_gpu": config.micro_batch,
        "gradient_accumulation_steps": config.accumulation,
        "gradient_clipping": config.grad_clip,
        # the loop itself stops at a loss that is not finite; DeepSpeed would look at each gradient, and skip a step unseen
        "bf16": {"enabled": config.precision == "bfloat16", "check_grad_overflow": False},
        "zero_optimization": zero,
        # the optimizer is torch's AdamW, given from outside
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }


def leave_muon() -> None:
    """Import DeepSpeed's Muon without compiling it: an optimizer that is not ours would cost each start two seconds."""
    from deepspeed.runtime import compiler

    compiled = compiler.compile
    compiler.compile = lambda: compiler.dummy_decorator
    try:
        importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")
    finally:
        compiler.compile = compiled
