"""Two kinds of checkpoint: the resumable state (DeepSpeed's, reported to Ray Train) and models to use (Hugging Face's)."""

import glob
import json
import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..models.components import canonical, component_of
from ..models.folders import NON_LORA, NON_LORA_NAMES
from ..models.load import model_digest
from ..models.moment_files import KINDS, refuse_classes
from ..models.moments import MOMENTS, save_moments
from ..models.mores import mores_of
from ..models.mores_files import save_mores
from ..models.trained import plain_weights, save_trained
from ..store.facts import read_fields
from ..store.files import whole_folder, write_json

STATE, PROGRESS = "state", "progress.json"


def save_state(engine: Any, folder: str, step: int, rank: int) -> None:
    """Write this rank's share of the resumable state after `step` optimizer steps."""
    engine.save_checkpoint(folder, tag=STATE)
    if rank == 0:
        Path(folder, PROGRESS).write_text(json.dumps({"step": step}))


def load_state(engine: Any, folder: str) -> int:
    """Restore weights and optimizer of this rank; return the optimizer steps already done.

    Raises:
        InputError: a file carries objects of other classes than DeepSpeed's: DeepSpeed would load, and so run, them.
    """
    for file in sorted(Path(folder, STATE).glob("**/*.pt")):
        refuse_classes(file)
    path, _ = engine.load_checkpoint(folder, tag=STATE)
    if path is None:
        raise RuntimeError(f"DeepSpeed found no state in {folder}")
    way_out = "Delete the training's folder, and train again."
    return read_fields(os.path.join(folder, PROGRESS), "state of a training", way_out, step=int)["step"]


def gather_moments(engine: Any, step: int, rank: int) -> dict[str, Any] | None:
    """Gather Adam's moments of all trained parameters on rank 0, as `save_moments` takes them; None on the other ranks.

    Every rank must call this after `step` optimizer steps: each holds only its share under ZeRO.
    """
    _link(engine.optimizer)
    moments: dict[str, dict[str, torch.Tensor]] = {k: {} for k in KINDS}
    for name, parameter in engine.module.model.named_parameters():
        if parameter.requires_grad:
            for kind in KINDS:
                whole = _whole_moment(engine, parameter, kind)
                if rank == 0:  # the others let go at once
                    moments[kind][canonical(name)] = whole.detach().float().cpu()
    group = engine.optimizer.param_groups[0]
    # a step skipped for an overflow is none of Adam's
    facts = {"step": step - engine.skipped_steps, "betas": tuple(group["betas"]), "eps": float(group["eps"])}
    return moments | facts if rank == 0 else None


def _whole_moment(engine: Any, parameter: torch.nn.Parameter, kind: str) -> torch.Tensor:
    from deepspeed.utils import safe_get_full_optimizer_state

    if engine.zero_optimization_stage() == 0:
        return engine.optimizer.state[parameter][kind]
    whole = safe_get_full_optimizer_state(parameter, kind)
    if whole is None:
        raise RuntimeError(f"DeepSpeed gives no {kind} of a parameter of shape {tuple(parameter.shape)}")
    return whole


def _link(optimizer: Any) -> None:
    # DeepSpeed 0.19 links parameters to their moments once, after the first param group's first step: the other groups
    # have none yet and are never found again by safe_get_full_optimizer_state (ZeRO 1 and 2)
    if hasattr(optimizer, "_hp_optimizer_states_linked"):
        optimizer._hp_optimizer_states_linked = False
        optimizer._lazy_init_hp_params_optimizer_state()


@dataclass(frozen=True)
class Extra:
    """What a checkpoint holds besides, or instead: Adam's `moments`, gathered before, go beside the weights.

    `base`: only trained weights are kept, in bfloat16, with the name of the model that they began from; `step` is theirs.
    """

    moments: dict[str, Any] | None = None
    base: str | None = None
    step: int = 0


def save_model(engine: Any, processor: Any, out: str, rank: int, extra: Extra = Extra()) -> None:
    """Write a model folder, whole or not at all (every rank must call this: ZeRO-3 gathers).

    Full training: a plain `LlavaForConditionalGeneration` folder that Hugging Face loads alone. LoRA: PEFT's adapter, and
    the other trained weights (the projector) in `non_lora.safetensors`. MoReS: the same, in files of its own.
    With `extra.base`: trained weights alone.
    """
    import deepspeed

    model = engine.module.model
    sharded = engine.zero_optimization_stage() == 3
    wanted = [p for p in model.parameters() if extra.base is None or p.requires_grad]
    with deepspeed.zero.GatheredParameters(wanted, modifier_rank=None, enabled=sharded):
        if rank == 0:
            _write(model, processor, out, extra)


def _write(model: Any, processor: Any, out: str, extra: Extra) -> None:
    for left in glob.glob(f"{glob.escape(out)}.tmp-*"):  # a killed worker's: as large as the model
        shutil.rmtree(left)
    with whole_folder(out) as temporary:
        mores = mores_of(model)
        if mores is not None:
            half = torch.bfloat16 if extra.base else None
            save_mores(model, temporary, model_digest(mores.base), NON_LORA, half)
        elif hasattr(model, "peft_config"):
            _write_adapter(model, temporary, torch.bfloat16 if extra.base else None)
        elif extra.base:
            save_trained(temporary, model.named_parameters(), extra.base, model_digest(extra.base), extra.step)
            model.config.save_pretrained(temporary)
        else:
            model.save_pretrained(temporary, state_dict=_copied(model))
        processor.save_pretrained(temporary)
        if extra.moments is not None:
            save_moments(os.path.join(temporary, MOMENTS), **extra.moments)
        if os.path.isdir(out):  # a restarted worker writes it again
            shutil.rmtree(out)


def _copied(model: Any) -> dict[str, torch.Tensor]:
    """Return a model's state on the CPU; tied weights stay one tensor, or a head would be written beside its embedding."""
    copies: dict[int, torch.Tensor] = {}
    state = model.state_dict(keep_vars=True)
    for value in state.values():
        if id(value) not in copies:
            copies[id(value)] = value.detach().cpu().clone().contiguous()
    return {name: copies[id(value)] for name, value in state.items()}


_README = """# {methods} adapter with other trained weights beside it

- `adapter_model.safetensors`, `adapter_config.json`: PEFT's adapter
- `{others}`: what was trained besides ({parts}), as whole weights; `{names}` lists them
- the processor: tokenizer, image processor, chat template

PEFT alone loads only the adapter, and says nothing of `{others}`: the model would not be the one that was trained. vinnow
loads all of it. One whole folder that Hugging Face loads alone, out of this one (MODEL) and its base:

```sh
{merge}
```

The base is {base}.
"""


def _write_adapter(model: Any, folder: str, dtype: torch.dtype | None) -> None:
    from safetensors.torch import save_file

    adapters = {k: v.detach() for k, v in model.state_dict().items() if component_of(k) == "lora"}
    model.save_pretrained(folder, state_dict={k: v.to(dtype or v.dtype) for k, v in adapters.items()})
    rest = ((n, p) for n, p in model.named_parameters() if p.requires_grad and component_of(n) != "lora")
    others = plain_weights(rest, dtype)
    if others:
        save_file(others, os.path.join(folder, NON_LORA))
        # a folder that was copied without that file must not pass for one that never had it
        write_json(os.path.join(folder, NON_LORA_NAMES), sorted(others))
        # in place of PEFT's blank card
        Path(folder, "README.md").write_text(_readme(model, list(others)), encoding="utf-8", errors="replace")


def _readme(model: Any, others: list[str]) -> str:
    peft = next(iter(model.peft_config.values()))
    return _README.format(
        methods=peft.peft_type.value,
        others=NON_LORA,
        names=NON_LORA_NAMES,
        parts=", ".join(sorted({component_of(name) for name in others})),
        merge=merge_command("MODEL"),
        base=f"`{peft.base_model_name_or_path}`",
    )


def merge_command(model: str) -> str:
    """Return the command that makes one whole folder of an adapter's."""
    return f"vinnow merge {shlex.quote(model)} --out merged"


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed dropout by (seed, step, rank): a resumed step draws what the undisturbed one drew; no state is saved."""
    torch.manual_seed((seed * 1_000_003 + step) * 4096 + rank)
