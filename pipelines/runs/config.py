"""A run is one YAML file plus `--set a.b=c`; it resolves into frozen models that live beside what they configure."""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, model_validator

from ...actors.cluster import RayConfig
from ...actors.config import ActorResources, FeatureConfig
from ...actors.kind import kind_of
from ...actors.registry import find, names
from ...evaluate.config import EvalConfig
from ...models.specs import TwinConfig
from ...pool.ingest import IngestConfig
from ...select import registry
from ...select.run import budget_rows, refuse_repeats
from ...store.config import Config
from ...store.errors import InputError
from ...store.facts import read_fields
from ...store.files import digest, join, read_json
from ...store.names import FeatureName, Name, path_part
from ...train.config import TrainConfig
from ..blanks import refuse_blanks
from .placing import Devices
from .plain_yaml import apply_set, read_yaml
from .rates import PlanConfig


class ModelSection(Config):
    """The model to start from: a checkpoint folder, or a tiny twin built on the spot."""

    path: str | None = None
    twin: TwinConfig | None = None

    @model_validator(mode="after")
    def _one(self) -> "ModelSection":
        if (self.path is None) == (self.twin is None):
            raise ValueError("give exactly one of path (a LLaVA checkpoint) and twin (a tiny random one)")
        return self


class StageSection(Config):
    """A training before the proxy (LLaVA's stage 1, say): which data, and TrainConfig's fields but model and pool."""

    name: Name
    data: Literal["pool", "captions"] = "captions"
    train: dict[str, Any] = {}


class SelectorSection(Config):
    """One selector of the sweep and its own config.

    `name`: the method. `label`: what picks, trials and the report call it; the method's name, unless one is there several
    times. `reads`: need → the feature that it means, where the run makes that kind under another name
    (`{gradient: grad_layer12}`). The baseline that all are compared with is the one labelled `random`.
    """

    name: Name
    config: dict[str, Any] = {}
    label: Name = Field(default_factory=lambda fields: fields.get("name", ""))
    reads: dict[str, FeatureName] = {}

    @model_validator(mode="after")
    def _free(self) -> "SelectorSection":
        # files of a seed are called LABEL-sSEED, and the whole pool beside the choices is called full
        if self.label != self.name and (re.search(r"-s\d+$", self.label) or self.label.lower() == "full"):
            raise ValueError(f"{self.label!r} is what something else is called; take another label")
        return self

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Show what is said beyond the defaults: stages know their inputs by it, also those of older versions."""
        for name, value in super().__repr_args__():
            if name in ("name", "config") or value not in (self.name, {}):
                yield name, value


class SweepSection(Config):
    """How the fine-tunes are run: so many at a time; `full` adds the whole pool beside the choices."""

    concurrent: int = Field(1, ge=1)
    full: bool = True


class RunConfig(Config):
    """The whole run. Sections named after a room are that room's config; dicts are its fields without paths.

    A training section (`warmup[].train`, `proxy`, `finetune`) may name a published `recipe`: its fields lie under the
    section's own. Without a `proxy`, features are taken at the model that warm-up left. `finetune` may hold `variants`:
    NAME → section; each choice is then trained by every one of them, and what stands beside `variants` goes for all.
    `devices`: what `--gpus` found, from which open places were filled (`placing.py`).
    """

    out: str
    seed: int = 0
    ray: RayConfig = RayConfig()
    pool: IngestConfig
    captions: IngestConfig | None = None
    target: IngestConfig | None = None
    test: IngestConfig
    model: ModelSection
    warmup: list[StageSection] = []
    proxy: dict[str, Any] | None = None
    features: list[SerializeAsAny[FeatureConfig]] = []
    actors: ActorResources = ActorResources()
    selectors: list[SelectorSection]
    budgets: list[int | str]
    seeds: list[int] = [0]
    finetune: dict[str, Any]
    evaluate: dict[str, Any] = {}
    sweep: SweepSection = SweepSection()
    plan: PlanConfig = PlanConfig()
    devices: Devices | None = None

    def digest(self) -> str:
        """Return 16 hexadecimal digits of the resolved tree.

        Where it runs, what that was priced at, how much may be refused and where a pool's pictures lie now is no matter.
        """
        tree = self.model_dump(exclude={"out", "ray", "plan", "devices"})
        pools = {"pool", "captions", "target", "test"}
        tree["features"] = [_ONCE_OF_ALL | _unless(f, name=f["kind"]) for f in tree["features"]]
        tree["selectors"] = [_unless(s, label=s["name"], reads={}) for s in tree["selectors"]]
        kept = {k: _without(v, ("max_refused",) if k in pools else PLACES) for k, v in tree.items()}
        return digest(json.dumps(kept, sort_keys=True))


# the sections that name a data set; each is ingested into the folder of its name
POOLS = ("pool", "captions", "target", "test")
# fields of a stage that change no number: what may be missing, and where the pictures of a pool that is there lie now
PLACES = ("max_refused", "max_part_retries", "image_root", "target_image_root")
# rows of a pool that no budget in rows exceeds: whether one fits is seen when the pool is there
_ANY_POOL = 10**12
# fields that the run fills in; a recipe that sets one of them would be overruled silently
TRAIN_FILLED = ("model", "pool", "picks", "seed")
EVAL_FILLED = ("model", "pool", "run")
# what every kind's config once held, in each digest still: runs go on in the folders that they began
_ONCE_OF_ALL: dict[str, Any] = {
    **{"which": "projector", "mode": "sgd", "unit_rows": True, "top_k": 5, "attention": "flat", "pooling": "text"},
    "projection": {"kind": "rademacher", "dim": 8192, "seed": 0, "nonzeros": 2},
}


def _without(tree: Any, names: tuple[str, ...]) -> Any:
    """Return a plain tree without the fields of these names."""
    if isinstance(tree, dict):
        return {k: _without(v, names) for k, v in tree.items() if k not in names}
    return [_without(v, names) for v in tree] if isinstance(tree, list) else tree


def train_config(section: dict[str, Any], where: str, **filled: Any) -> TrainConfig:
    """Return a section of the run as a TrainConfig, or say which field is wrong."""
    _refuse_filled(section, TRAIN_FILLED, where)
    return TrainConfig.parse({"model": "-", "pool": "-"} | section | filled, where)


def eval_config(section: dict[str, Any], **filled: Any) -> EvalConfig:
    """Return the `evaluate` section as an EvalConfig, or say which field is wrong."""
    _refuse_filled(section, EVAL_FILLED, "evaluate")
    return EvalConfig.parse({"model": "-", "pool": "-", "run": "-"} | section | filled, "evaluate")


def load_run(path: str, sets: list[str] | None = None, **overrides: Any) -> RunConfig:
    """Read a run's YAML, or the `run.json` that a run saved; apply `--set a.b=c`, and check every section.

    Raises:
        InputError: no such file, no YAML, an unknown or wrong field (with its path and the nearest right one).
    """
    return resolve(read_run(path) | overrides, sets)


def read_run(path: str) -> dict[str, Any]:
    """Return the plain values of a run's YAML, or of the `run.json` that a run saved.

    Raises:
        InputError: no such file, or it is something else.
    """
    values = read_json(path) if path.endswith(".json") else read_yaml(path)
    saved = isinstance(values, dict) and {"config", "digest"} <= set(values)
    return _of_their_kinds(values["config"]) if saved else values


def resolve(values: dict[str, Any], sets: list[str] | None = None) -> RunConfig:
    """Build and check a run from plain values."""
    for entry in sets or []:
        apply_set(values, entry)
    refuse_blanks(values)
    run = _with_recipes(RunConfig.parse(values))
    _refuse_twins(run)
    for stage in run.warmup:
        train_config(stage.train, f"warmup.{stage.name}")
        if stage.data == "captions" and run.captions is None:
            raise InputError(f"warmup.{stage.name} trains on captions, but the run has no `captions` section.")
    if run.proxy is not None:
        train_config(run.proxy, "proxy")
    for variant, section in finetunes(run.finetune).items():
        train_config(section, where_of(variant))
    eval_config(run.evaluate)
    _check_selectors(run)
    return run


def saved_run(run_dir: str) -> dict[str, Any]:
    """Return what a run's folder says of its run: `digest`, the resolved `config`, `version`.

    Raises:
        DamagedError: something else lies in its run.json's place.
    """
    kinds = {"digest": str, "config": dict[str, Any], "version": str | None}
    kinds |= {"history": list[dict[str, Any]] | None}
    found = read_fields(join(run_dir, "run.json"), "run's config", "Put it back, or begin in another `out`.", **kinds)
    return found | {"config": _of_their_kinds(found["config"])}


def parsed(saved: dict[str, Any], out: str) -> RunConfig:
    """Return a saved config as this version reads it.

    Raises:
        InputError: it cannot; names the version that wrote it.
    """
    try:
        return RunConfig.parse(saved["config"], join(out, "run.json"))
    except InputError as error:
        version = saved.get("version") or "an older one"
        raise InputError(
            f"{str(error).rstrip('.')}. It was begun by vinnow {version}: go on with that, or elsewhere."
        ) from error


def _of_their_kinds(config: Any) -> Any:
    """Return a saved config without what its features once held of other kinds' fields, and never read."""
    features = config.get("features") if isinstance(config, dict) else None
    if not isinstance(features, list) or not all(isinstance(f, dict) for f in features):
        return config
    return config | {"features": [_of_its_kind(f) for f in features]}


def _unless(section: dict[str, Any], **usual: Any) -> dict[str, Any]:
    """Return a section without fields that say what they usually do: digests knew none of them once."""
    return {k: v for k, v in section.items() if k not in usual or v != usual[k]}


def _of_its_kind(feature: dict[str, Any]) -> dict[str, Any]:
    kind = feature.get("kind", "gradient")
    own = find(kind).Config.model_fields if kind in names() else feature
    return {"name": kind} | {k: v for k, v in feature.items() if k in own or k not in _ONCE_OF_ALL}


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


def finetunes(finetune: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the fine-tunes of each choice by name, of a resolved section; that of a run without variants is called ""."""
    return finetune.get("variants", {"": finetune})


def where_of(variant: str) -> str:
    """Return where a fine-tune's section stands in the run, for messages."""
    return f"finetune.variants.{variant}" if variant else "finetune"


def _refuse_twins(run: RunConfig) -> None:
    for where, sections in (("warmup", run.warmup), ("features", run.features)):
        names = [s.name.lower() for s in sections]  # some file systems tell no case apart
        for name in names:
            if names.count(name) > 1:
                raise InputError(
                    f"{where}: {name!r} is there twice; folders are called after it, so give each its own name."
                )


def _with_recipes(run: RunConfig) -> RunConfig:
    """Return the run with numbers in place of recipe names, so that what is saved, printed and hashed holds them all."""
    warmup = [s.model_copy(update={"train": with_recipe(s.train, f"warmup.{s.name}")}) for s in run.warmup]
    proxy = None if run.proxy is None else with_recipe(run.proxy, "proxy")
    return run.model_copy(update={"warmup": warmup, "proxy": proxy, "finetune": _finetune(run.finetune)})


def _finetune(section: dict[str, Any]) -> dict[str, Any]:
    if "variants" not in section:
        return with_recipe(section, "finetune")
    given, common = section["variants"], {k: v for k, v in section.items() if k != "variants"}
    if not isinstance(given, dict) or not given or not all(isinstance(v, dict) for v in given.values()):
        raise InputError(f"finetune.variants wants one or more of NAME: {{fields of a training}}, not {given!r}.")
    for name in given:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", str(name)):  # folders are called after it, and `--set` counts dots
            raise InputError(f"finetune.variants: {name!r} is no name; take letters, digits, _ and -")
        path_part(str(name), "finetune.variants")
    return {"variants": {str(n): with_recipe(_over(common, own), where_of(str(n))) for n, own in given.items()}}


def _over(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the fields of `own` over it, mapping by mapping, as `--set` would put them."""
    both = {k: _over(base[k], v) for k, v in own.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return base | own | both


def _check_selectors(run: RunConfig) -> None:
    labels = [s.label.lower() for s in run.selectors]
    refuse_repeats(run.budgets)
    for budget in run.budgets:
        budget_rows(budget, _ANY_POOL)
    for feature in run.features:
        if kind_of(feature).aims and run.target is None:
            raise InputError(
                f"{feature.name} features are measured against targets, but the run has no `target` section."
            )
    for section in run.selectors:
        if labels.count(section.label.lower()) > 1:  # files and trials are called after it
            raise InputError(f"selector {section.label!r} is listed twice; give each a label of its own.")
        if section.label != section.name and section.label in registry.names():
            raise InputError(f"selector {section.name!r}: the label {section.label!r} is another method's name.")
        needs = registry.make(section.name, section.config).needs.called(section.reads)
        if needs.targets and run.target is None:
            raise InputError(f"selector {section.label!r} reads targets, but the run has no `target` section.")
        for need in needs.features:
            _check_need(run, section, need)


def _check_need(run: RunConfig, section: SelectorSection, need: str) -> None:
    """See that the run makes what a selector reads."""
    made, name = {f.name: f for f in run.features}, section.reads.get(need, need)
    if name not in made:
        alike = [f.name for f in run.features if f.kind == need]
        hint = f" Say which with `reads: {{{need}: {alike[0]}}}`." if alike else ""
        wanted = f"{need!r} features" + (f" (by the name {name!r})" if name != need else "")
        raise InputError(f"selector {section.label!r} needs {wanted}; `features` makes {sorted(made)}.{hint}")
    if need in section.reads and made[name].kind != need:
        raise InputError(f"selector {section.label!r} reads {need!r}; {name!r} is of kind {made[name].kind!r}.")
    # one model, whose learning rate nobody knows, is no path
    if run.proxy is None and kind_of(made[name]).along:
        raise InputError(
            f"selector {section.label!r} goes by {name} features at a proxy's checkpoints and their learning rates, "
            "but the run has no `proxy` section."
        )


def _refuse_filled(section: dict[str, Any], filled: tuple[str, ...], where: str) -> None:
    given = sorted(set(section) & set(filled))
    if given:
        raise InputError(f"{where}: {given} are filled in by the run itself; remove them.")
