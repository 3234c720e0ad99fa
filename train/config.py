"""What a training is: a recipe, and what it is done with."""

import os

from pydantic import Field

from ..models.folders import local_model
from ..pool.paths import absolute_root
from .recipe import TrainRecipe

# what makes a job of a recipe
JOB = ("model", "pool", "picks", "seed")
# the fields by which a run's digest names a training, in the order that it always had; a new one comes last
ORDER = [
    "model",
    "pool",
    "image_root",
    "picks",
    "parts",
    "lora",
    "peft",
    "quantise",
    "mores",
    "template",
    "image_mode",
    "pictures",
    "max_len",
    "lr",
    "projector_lr",
    "mores_lr",
    "weight_decay",
    "warmup_ratio",
    "schedule",
    "epochs",
    "max_steps",
    "global_batch",
    "micro_batch",
    "workers",
    "use_gpu",
    "threads",
    "zero_stage",
    "offload",
    "compile",
    "precision",
    "grad_clip",
    "gradient_checkpointing",
    "group_by_modality",
    "loss_mean",
    "max_refused",
    "checkpoint_count",
    "checkpoint_steps",
    "checkpoint_start",
    "checkpoint_limit",
    "checkpoint_weights",
    "save_moments",
    "resume_steps",
    "max_failures",
    "validation",
    "loader_workers",
    "loader_threads",
    "cache_mb",
    "log_steps",
    "trackers",
    "tracker_project",
    "seed",
]


class TrainConfig(TrainRecipe):
    """A recipe with what it trains, and on which rows: one training."""

    model: str = Field(description="The model to train: a folder, or a Hugging Face name.")
    pool: str = Field(description="The POOL folder.")
    picks: str | None = Field(None, description="A PICKS file, whose rows alone are trained on; null: the whole pool.")
    seed: int = Field(42, description="Decides the order of rows and all that is drawn.")

    def absolute(self) -> "TrainConfig":
        """Return the config with paths that workers understand, whose folder is another one."""
        held = self.validation
        if held is not None:
            places = {"pool": _absolute(held.pool), "image_root": absolute_root(held.image_root)}
            held = held.model_copy(update=places)
        places = {n: _absolute(getattr(self, n)) for n in ("pool", "picks")} | {"model": local_model(self.model)}
        return self.model_copy(update=places | {"image_root": absolute_root(self.image_root), "validation": held})


def _absolute(path: str | None) -> str | None:
    return path if path is None or "://" in path else os.path.abspath(path)
