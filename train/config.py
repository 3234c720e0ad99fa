"""What a training is: data, parts, optimizer, DeepSpeed, checkpoints. One source for every number."""

import math
import os
from typing import Literal

from pydantic import Field, model_validator

from ..models.folders import local_model
from ..models.specs import PARTS, AdapterSpec, LoraSpec, MoresSpec
from ..pool.paths import absolute_root
from ..pool.shown import Pictures
from ..pool.templates import TEMPLATES
from ..store.config import Config
from ..store.errors import suggest
from ..store.usage import MAX_REFUSED

TrackerName = Literal["tensorboard", "mlflow", "wandb"]
# what changes neither what is trained nor what is left; a training that was cut off may go on with others
FREE = ("threads", "cache_mb", "loader_workers", "loader_threads", "max_failures", "resume_steps")
FREE += ("gradient_checkpointing", "trackers", "tracker_project", "max_refused")
Part = Literal["vision_tower", "projector", "language_model", "lora", "mores"]


class ValidationSpec(Config):
    """Rows held out: their loss every `steps` steps and after the last one, over at most `max_rows` of them.

    `keep_best`: the model of the lowest loss so far stays in `OUT/best` (the last one is in `OUT/model` either way).
    """

    pool: str
    image_root: str | None = None
    steps: int = Field(200, ge=1)
    max_rows: int | None = Field(None, ge=1)
    keep_best: bool = True


class TrainConfig(Config):
    """One training stage. Defaults are LLaVA-1.5's stage 2 where they do not depend on the machine (spec: LLaVA §5).

    `parts`: ["projector"] is stage 1, ["projector", "language_model"] stage 2, ["projector", "lora"] LoRA,
    with `peft` in place of `lora` another of PEFT's methods; `quantise`: QLoRA, the frozen language model in 4 bits.
    ["projector", "mores"] MoReS, whose group has `mores_lr` (without it, `lr`) and no weight decay.
    `pictures`: how a picture's file becomes RGB: as a viewer shows it, transparent parts on white or black, or as the
    published code reads it (`pool/shown.py`).
    `global_batch = micro_batch × accumulation × workers`, checked when the config is read. `epochs` may be a fraction;
    `max_steps` overrules it. `checkpoint_count` leaves that many evenly spaced proxy checkpoints, the last step included;
    `checkpoint_steps` one every so many steps; `checkpoint_start` also keeps the model before its first step;
    `checkpoint_weights`: whole models that Hugging Face loads alone, or only what this training changes, in bfloat16 (a
    LoRA training's checkpoints are its adapters either way); `save_moments` puts Adam's moments beside the weights of each,
    for gradients in the Adam modes; `checkpoint_limit` keeps the last so many. `resume_steps`: how often the resumable
    state is saved. The report's loss is the mean of the last `log_steps` steps.
    `loss_mean`: "step", the mean over all trained tokens of the global batch (Hugging Face's Trainer since 4.46), which
    does not depend on `micro_batch`, `workers` or the order of rows; "micro_batch", the mean of the micro-batches' means,
    over micro-batches of equal length, as LLaVA's and other published figures were made. `max_refused`: the share of rows
    that may turn out unusable (a picture that is gone, an answer cut off) before the training fails.
    `offload`: AdamW's state, or also the parameters (ZeRO-3), in the host's memory. `compile`: the decoder's layers by
    torch.compile, which fuses what is element-wise. `trackers` get every step's numbers beside `log.jsonl`.
    `loader_workers`: processes beside each worker that prepare its batches (0: a thread of its own, which takes turns with
    the step's Python); `loader_threads` decode the pictures in each; `cache_mb`: memory that each may use to keep prepared
    rows from one epoch to the next.
    """

    model: str
    pool: str
    image_root: str | None = None
    picks: str | None = None
    parts: list[Part] = ["projector", "language_model"]
    lora: LoraSpec | None = None
    peft: AdapterSpec | None = None
    quantise: Literal["nf4"] | None = None
    mores: MoresSpec | None = None
    template: str = "v1"
    image_mode: Literal["pad", "square"] = "pad"
    pictures: Pictures = "white"
    max_len: int = Field(2048, ge=8)
    lr: float = Field(2e-5, gt=0)
    projector_lr: float | None = Field(None, gt=0)
    mores_lr: float | None = Field(None, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    epochs: float = Field(1.0, gt=0)
    max_steps: int | None = Field(None, ge=1)
    global_batch: int = Field(128, ge=1)
    micro_batch: int = Field(16, ge=1)
    workers: int = Field(1, ge=1)
    use_gpu: bool = False
    threads: int = Field(1, ge=1)
    zero_stage: Literal[0, 1, 2, 3] = 2
    offload: Literal["none", "optimizer", "parameters"] = "none"
    compile: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    grad_clip: float = Field(0.0, ge=0)
    gradient_checkpointing: bool = False
    group_by_modality: bool = True
    loss_mean: Literal["step", "micro_batch"] = "step"
    max_refused: float = Field(MAX_REFUSED, ge=0, le=1)
    checkpoint_count: int = Field(0, ge=0)
    checkpoint_steps: int = Field(0, ge=0)
    checkpoint_start: bool = False
    checkpoint_limit: int | None = Field(None, ge=1)
    checkpoint_weights: Literal["all", "trained"] = "all"
    save_moments: bool = False
    resume_steps: int = Field(200, ge=1)
    max_failures: int = Field(2, ge=0)
    validation: ValidationSpec | None = None
    loader_workers: int = Field(0, ge=0)
    loader_threads: int = Field(2, ge=1)
    cache_mb: int = Field(0, ge=0)
    log_steps: int = Field(10, ge=1)
    trackers: list[TrackerName] = []
    tracker_project: str = "vinnow"
    seed: int = 0

    @model_validator(mode="after")
    def _fits(self) -> "TrainConfig":
        if self.template not in TEMPLATES:
            raise ValueError(f"unknown template {self.template!r}{suggest(self.template, TEMPLATES)}")
        if self.global_batch % (self.micro_batch * self.workers):
            raise ValueError(
                f"global_batch {self.global_batch} is not micro_batch {self.micro_batch} × workers {self.workers} × a "
                f"whole number of accumulation steps; {self.micro_batch * self.workers} would be"
            )
        if not self.parts or len(set(self.parts)) != len(self.parts):
            raise ValueError(f"parts must name some of {PARTS}, each once")
        self._fits_adapters()
        self._fits_mores()
        self._fits_engine()
        if self.checkpoint_count and self.checkpoint_steps:
            raise ValueError("give checkpoint_count or checkpoint_steps, not both")
        if self.save_moments and self.checkpoint_start:
            raise ValueError("save_moments and checkpoint_start exclude each other: Adam has no moments before step 1")
        if self.save_moments and not (self.checkpoint_count or self.checkpoint_steps):
            raise ValueError("save_moments needs checkpoint_count or checkpoint_steps: there is nothing to save beside")
        return self

    def _fits_adapters(self) -> None:
        if self.lora is not None and self.peft is not None:
            raise ValueError("give `lora` or `peft`, not both")
        if ("lora" in self.parts) != (self.lora is not None or self.peft is not None):
            raise ValueError("the part 'lora' and the section `lora` (or `peft`) go together")
        if "lora" in self.parts and "language_model" in self.parts:
            raise ValueError("train either the language model or LoRA on it")
        if self.quantise is not None and "lora" not in self.parts:
            raise ValueError("quantise: a language model in 4 bits is trained by adapters on it; add `lora` or `peft`")
        if self.quantise is not None and self.zero_stage == 3:
            raise ValueError("quantise: ZeRO-3 cannot shard weights in 4 bits; use zero_stage 2")

    def _fits_engine(self) -> None:
        if self.precision == "bfloat16" and self.zero_stage == 0:
            # DeepSpeed 0.19 then warms AdamW up with a step on zero gradients, which falsifies its bias correction
            raise ValueError("bfloat16 needs zero_stage 1 or more: stage 0 would begin AdamW at its second step")
        if self.offload == "optimizer" and not self.zero_stage:
            raise ValueError("offload: optimizer needs zero_stage 1 or more")
        if self.offload == "parameters" and self.zero_stage != 3:
            raise ValueError("offload: parameters needs zero_stage 3; others keep whole parameters on the GPU")
        if self.compile and (self.zero_stage == 3 or self.mores is not None):
            raise ValueError("compile: layers that ZeRO-3 or MoReS hook into cannot be compiled; remove one of the two")
        if len(set(self.trackers)) != len(self.trackers):
            raise ValueError("trackers: name each once")

    def _fits_mores(self) -> None:
        if ("mores" in self.parts) != (self.mores is not None):
            raise ValueError("the part 'mores' and the section `mores` go together")
        if self.mores is None and self.mores_lr is not None:
            raise ValueError("mores_lr is MoReS's learning rate, and there is no section `mores`")
        if self.mores is not None and set(self.parts) - {"mores", "projector"}:
            raise ValueError("MoReS leaves the model frozen: beside it only the projector can be trained")

    @property
    def accumulation(self) -> int:
        """Micro-batches a worker adds up in one optimizer step."""
        return self.global_batch // (self.micro_batch * self.workers)

    def absolute(self) -> "TrainConfig":
        """Return the config with paths that workers understand, whose folder is another one."""
        held = self.validation
        if held is not None:
            places = {"pool": _absolute(held.pool), "image_root": absolute_root(held.image_root)}
            held = held.model_copy(update=places)
        places = {n: _absolute(getattr(self, n)) for n in ("pool", "picks")} | {"model": local_model(self.model)}
        return self.model_copy(update=places | {"image_root": absolute_root(self.image_root), "validation": held})

    def planned_steps(self, rows: int) -> int:
        """Return the optimizer steps for so many rows."""
        return self.max_steps or math.ceil(self.epochs * math.ceil(rows / self.global_batch))

    def planned_checkpoints(self, steps: int) -> list[int]:
        """Return the steps after which a proxy checkpoint is written; of them, the last `checkpoint_limit` stay."""
        first = [0] if self.checkpoint_start else []
        if self.checkpoint_steps:
            return [*first, *range(self.checkpoint_steps, steps + 1, self.checkpoint_steps)]
        n = min(self.checkpoint_count, steps)
        return first + sorted({max(1, round(steps * (i + 1) / n)) for i in range(n)})

    def kept_checkpoints(self, steps: int, done: int | None = None) -> list[int]:
        """Return the steps whose proxy checkpoints stand when `done` of all steps are done (without it, all of them)."""
        made = [s for s in self.planned_checkpoints(steps) if done is None or s <= done]
        return made[-self.checkpoint_limit :] if self.checkpoint_limit else made


def _absolute(path: str | None) -> str | None:
    return path if path is None or "://" in path else os.path.abspath(path)
