"""The sections of a run that are recipes: what it trains and how it asks. The run adds models, pools, picks and seeds."""

import re
from typing import Any, Literal

from pydantic import Field

from ...evaluate.config import JOB as EVALUATION
from ...evaluate.config import EvalConfig, EvalRecipe
from ...store.config import Config, Section
from ...store.errors import InputError, suggest
from ...store.names import Name, path_part
from ...train.config import JOB as TRAINING
from ...train.config import TrainConfig
from ...train.recipe import TrainRecipe
from .plain_yaml import read_yaml


class TrainSection(Section, TrainRecipe):
    """A training of a run; in a file it may name a published `recipe`, whose fields lie under its own."""

    def recipe(self) -> TrainRecipe:
        """Return it with all fields."""
        return TrainRecipe.model_validate(_named(self, TrainRecipe))

    def job(self, **filled: Any) -> TrainConfig:
        """Return it as a training; `filled`: model, pool, picks and seed."""
        return TrainConfig.model_validate(_named(self, TrainRecipe) | filled)


class FinetuneSection(TrainSection):
    """The fine-tune of each choice, or several of them: what stands beside `variants` goes for all."""

    variants: dict[str, TrainSection] | None = Field(
        None,
        description="NAME → a training: each choice is trained by every one of them, and what stands beside goes "
        "for all.",
    )

    def by_name(self) -> dict[str, TrainSection]:
        """Return the fine-tunes of each choice by name, of a resolved run; that of a run without variants is called ""."""
        return self.variants or {"": self}


class EvalSection(Section, EvalRecipe):
    """How the models of a run are asked."""

    def recipe(self) -> EvalRecipe:
        """Return it with all fields."""
        return EvalRecipe.model_validate(_named(self, EvalRecipe))

    def job(self, **filled: Any) -> EvalConfig:
        """Return it as an evaluation; `filled`: model, pool and run."""
        return EvalConfig.model_validate(_named(self, EvalRecipe) | filled)


class StageSection(Config):
    """A training before the proxy (LLaVA's stage 1, say): on which data, and how."""

    name: Name = Field(description="What folders and stages call it.", examples=["stage1"])
    data: Literal["pool", "captions"] = Field("captions", description="What it is trained on.")
    train: TrainSection = Field(TrainSection(), description="How.")


def resolved(values: dict[str, Any]) -> dict[str, Any]:
    """Return a run's plain values with numbers in place of recipe names, so that what is saved and hashed holds them all.

    What is no mapping where one belongs is left to be refused.

    Raises:
        InputError: there is no such recipe; a variant has no name; a section sets what the run fills in.
    """
    run = {name: _plain(value) for name, value in values.items()}
    if isinstance(run.get("warmup"), list):
        run["warmup"] = [_stage(stage, f"warmup.{number}.train") for number, stage in enumerate(run["warmup"])]
    if isinstance(run.get("proxy"), dict):
        run["proxy"] = _training(run["proxy"], "proxy")
    if isinstance(run.get("finetune"), dict):
        run["finetune"] = _finetune(run["finetune"])
    if isinstance(run.get("evaluate"), dict):
        _refuse_filled(run["evaluate"], EVALUATION, "evaluate")
    return run


def with_recipe(section: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a training section with the fields of its `recipe` (of `train/recipes/`, or a YAML file) under its own.

    Raises:
        InputError: there is no such recipe; names the nearest one.
    """
    if "recipe" not in section:
        return section
    name = section["recipe"]
    if not isinstance(name, str):
        raise InputError(f"{where}.recipe wants the name of a training recipe or a YAML file, not {name!r}.")
    base = read_yaml(name, "train", f"recipe for {where}")
    return _over(base, {k: v for k, v in section.items() if k != "recipe"})


def where_of(variant: str) -> str:
    """Return where a fine-tune's section stands in the run, for messages."""
    return f"finetune.variants.{variant}" if variant else "finetune"


def _named(section: Section, recipe: type[Config]) -> dict[str, Any]:
    return {n: getattr(section, n) for n in recipe.model_fields if n in section.model_fields_set}


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, Section) else value


def _stage(stage: Any, where: str) -> Any:
    if not isinstance(stage, dict) or not isinstance(train := _plain(stage.get("train")), dict):
        return stage
    return stage | {"train": _training(train, where)}


def _training(section: dict[str, Any], where: str) -> dict[str, Any]:
    whole = with_recipe(section, where)
    _refuse_filled(whole, TRAINING, where)
    return whole


def _finetune(section: dict[str, Any]) -> dict[str, Any]:
    if section.get("variants") is None:
        return _training({k: v for k, v in section.items() if k != "variants"}, "finetune")
    variants, common = _mapping(section["variants"]), {k: v for k, v in section.items() if k != "variants"}
    if not isinstance(variants, dict) or not variants or not all(isinstance(v, dict) for v in variants.values()):
        raise InputError(f"finetune.variants wants one or more of NAME: {{fields of a training}}, not {variants!r}.")
    for name in common:  # else it would be named once in each variant, where it does not stand
        if name not in (*TrainSection.model_fields, "recipe", *TRAINING):
            raise InputError(f"unknown field {f'finetune.{name}'!r}{suggest(name, TrainSection.model_fields)}")
    for name in variants:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", str(name)):  # folders are called after it, and `--set` counts dots
            raise InputError(f"finetune.variants: {name!r} is no name; take letters, digits, _ and -")
        path_part(str(name), "finetune.variants")
    return {"variants": {str(n): _training(_over(common, own), where_of(str(n))) for n, own in variants.items()}}


def _over(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the fields of `own` over it, mapping by mapping, as `--set` would put them."""
    both = {k: _over(base[k], v) for k, v in own.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return base | own | both


def _mapping(variants: Any) -> Any:
    return {n: _plain(v) for n, v in variants.items()} if isinstance(variants, dict) else variants


def _refuse_filled(section: dict[str, Any], filled: tuple[str, ...], where: str) -> None:
    fields = sorted(set(section) & set(filled))
    if fields:
        raise InputError(f"{where}: {fields} are filled in by the run itself; remove them.")
