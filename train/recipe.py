"""How a training is done: parts, optimizer, DeepSpeed, checkpoints. One source for every number."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from ..models.specs import COMPONENTS, AdapterSpec, LoraSpec, MoresSpec
from ..pool.inputs import InputConfig
from ..store.config import Config
from ..store.usage import MAX_REFUSED

TrackerName = Literal["tensorboard", "mlflow", "wandb"]
# what changes neither what is trained nor what is left; a training that was cut off may go on with others
FREE = ("threads", "cache_mb", "loader_workers", "loader_threads", "max_failures", "resume_steps")
FREE += ("gradient_checkpointing", "trackers", "tracker_project", "max_refused")
Part = Literal["vision_tower", "projector", "language_model", "lora", "mores"]


class ValidationSpec(Config):
    """Rows held out, and how their loss is measured."""

    pool: str = Field(description="The POOL folder of the rows held out.")
    image_root: str | None = Field(None, description="Where its pictures lie now, if not where ingest found them.")
    steps: int = Field(200, ge=1, description="Their loss is measured every so many steps, and after the last one.")
    max_rows: int | None = Field(None, ge=1, description="At most so many of them; null: all.")
    keep_best: bool = Field(
        True,
        description="The model of the lowest loss so far stays in `OUT/best` (the last one is in `OUT/model` "
        "either way).",
    )


class TrainRecipe(InputConfig):
    """How a model is trained, whatever model on whatever data; a published recipe or a run's section is one.

    Defaults are LLaVA-1.5's stage 2 where they do not depend on the machine (spec: LLaVA §5).
    `global_batch = micro_batch × accumulation × workers`, checked when the recipe is read.
    """

    image_root: str | None = Field(
        None, description="Where the pool's pictures lie now, if not where ingest found them."
    )
    parts: list[Part] = Field(
        ["projector", "language_model"],
        description="What is trained: the projector alone is stage 1, with the whole language model stage 2, with `lora` "
        "LoRA or the method of `peft`, with `mores` MoReS.",
    )
    lora: LoraSpec | None = Field(None, description="LoRA on the language model; goes with the part `lora`.")
    peft: AdapterSpec | None = Field(None, description="Another of PEFT's methods in place of `lora`.")
    quantise: Literal["nf4"] | None = Field(None, description="QLoRA: the frozen language model in 4 bits.")
    mores: MoresSpec | None = Field(None, description="MoReS's steering; goes with the part `mores`.")
    lr: float = Field(2e-5, gt=0, description="The highest learning rate.")
    projector_lr: float | None = Field(None, gt=0, description="The projector's own; null: `lr`.")
    mores_lr: float | None = Field(
        None, gt=0, description="That of MoReS's group, which has no weight decay; null: `lr`."
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay.")
    warmup_ratio: float = Field(
        0.03, ge=0, lt=1, description="The share of the steps over which the learning rate rises."
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="How the learning rate falls after that."
    )
    epochs: float = Field(1.0, gt=0, description="Passes over the rows; may be a fraction.")
    max_steps: int | None = Field(None, ge=1, description="The number of optimizer steps; overrules `epochs`.")
    global_batch: int = Field(128, ge=1, description="Rows of an optimizer step: micro_batch × accumulation × workers.")
    micro_batch: int = Field(16, ge=1, description="Rows that a worker computes at once.")
    workers: int = Field(1, ge=1, description="Processes that train, each on a GPU of its own with `use_gpu`.")
    use_gpu: bool = Field(False, description="Train on GPUs.")
    threads: int = Field(1, ge=1, description="Torch threads of a worker.")
    zero_stage: Literal[0, 1, 2, 3] = Field(2, description="DeepSpeed's ZeRO stage: what workers share out among them.")
    offload: Literal["none", "optimizer", "parameters"] = Field(
        "none", description="AdamW's state, or also the parameters (ZeRO-3), in the host's memory."
    )
    compile: bool = Field(False, description="The decoder's layers by torch.compile, which fuses what is element-wise.")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="What forward and backward passes compute in."
    )
    grad_clip: float = Field(0.0, ge=0, description="The largest norm of a step's gradient; 0: none is clipped.")
    gradient_checkpointing: bool = Field(
        False, description="Activations are computed again in the backward pass, not kept."
    )
    group_by_modality: bool = Field(
        True, description="Rows with pictures and rows without stand in batches of their own, as in LLaVA's sampler."
    )
    loss_mean: Literal["step", "micro_batch"] = Field(
        "step",
        description="`step`: the mean over all trained tokens of the global batch (Hugging Face's Trainer since "
        "4.46), which does not depend on `micro_batch`, `workers` or the order of rows. "
        "`micro_batch`: the mean of the micro-batches' means, over micro-batches of equal length, as "
        "LLaVA's and other published figures were made.",
    )
    max_refused: float = Field(
        MAX_REFUSED,
        ge=0,
        le=1,
        description="The share of rows that may turn out unusable (a picture that is gone, an answer cut off) "
        "before the training fails.",
    )
    checkpoint_count: int = Field(
        0, ge=0, description="Leave so many evenly spaced proxy checkpoints, the last step included."
    )
    checkpoint_steps: int = Field(0, ge=0, description="Leave a proxy checkpoint every so many steps; 0: none.")
    checkpoint_start: bool = Field(False, description="Also keep the model before its first step.")
    checkpoint_limit: int | None = Field(None, ge=1, description="Keep the last so many checkpoints; null: all.")
    checkpoint_weights: Literal["all", "trained"] = Field(
        "all",
        description="Whole models that Hugging Face loads alone, or only what this training changes, in bfloat16 "
        "(a LoRA training's checkpoints are its adapters either way).",
    )
    save_moments: bool = Field(
        False, description="Put Adam's moments beside the weights of each checkpoint, for gradients in the Adam modes."
    )
    resume_steps: int = Field(200, ge=1, description="How often the resumable state is saved, in steps.")
    max_failures: int = Field(
        2, ge=0, description="How often lost workers are started again before the training fails."
    )
    validation: ValidationSpec | None = Field(None, description="Rows held out, whose loss is measured on the way.")
    loader_workers: int = Field(
        0,
        ge=0,
        description="Processes beside each worker that prepare its batches; 0: a thread of its own, which takes "
        "turns with the step's Python.",
    )
    loader_threads: int = Field(2, ge=1, description="Threads that decode the pictures in each of them.")
    cache_mb: int = Field(
        0, ge=0, description="Memory in MB that each of them may use to keep prepared rows from one epoch to the next."
    )
    log_steps: int = Field(10, ge=1, description="The report's loss is the mean of the last so many steps.")
    trackers: list[TrackerName] = Field([], description="What gets every step's numbers beside `log.jsonl`.")
    tracker_project: str = Field("vinnow", description="The project's name in a tracker.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.global_batch % (self.micro_batch * self.workers):
            raise ValueError(
                f"global_batch {self.global_batch} is not micro_batch {self.micro_batch} × workers {self.workers} × a "
                f"whole number of accumulation steps; {self.micro_batch * self.workers} would be"
            )
        if not self.parts or len(set(self.parts)) != len(self.parts):
            raise ValueError(f"parts must name some of {COMPONENTS}, each once")
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

    def planned_steps(self, rows: int) -> int:
        """Return the optimizer steps for so many rows."""
        return self.max_steps or math.ceil(self.epochs * math.ceil(rows / self.global_batch))

    def idle(self, rows: int) -> bool:
        """Say whether a training on so many rows would change nothing: its one step is the warm-up's first, at rate 0."""
        return self.planned_steps(rows) == 1 and self.warmup_ratio > 0

    def planned_checkpoints(self, steps: int) -> list[int]:
        """Return the steps after which a proxy checkpoint is written; of them, the last `checkpoint_limit` stay."""
        first = [0] if self.checkpoint_start else []
        if self.checkpoint_steps:
            return [*first, *range(self.checkpoint_steps, steps + 1, self.checkpoint_steps)]
        n = min(self.checkpoint_count, steps)
        return first + sorted({max(1, round(steps * (i + 1) / n)) for i in range(n)})

    def kept_checkpoints(self, steps: int, done: int | None = None) -> list[int]:
        """Return the steps whose proxy checkpoints stand when `done` of all steps are done (without it, all of them)."""
        saved = [s for s in self.planned_checkpoints(steps) if done is None or s <= done]
        return saved[-self.checkpoint_limit :] if self.checkpoint_limit else saved
