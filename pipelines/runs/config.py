"""A run is one YAML file plus `--set a.b=c`; it resolves into frozen models that live beside what they configure."""

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, StrictInt, field_validator, model_validator

from ...actors.cluster import RayConfig
from ...actors.config import ActorResources, FeatureConfig
from ...actors.kind import kind_of
from ...actors.registry import find, names
from ...models.specs import TinyModelConfig
from ...pool.ingest import IngestConfig
from ...select import registry
from ...select.rule import Picker, with_rule
from ...select.run import budget_rows, refuse_repeats
from ...store.config import Config
from ...store.errors import InputError
from ...store.facts import read_fields
from ...store.files import digest, join, read_json
from ...store.names import FeatureName, Name
from ..blanks import refuse_blanks
from .filled import HeldOut, fitted, refuse_recipes, with_held_out, with_model
from .pick_rules import expanded
from .placing import Devices
from .plain_yaml import apply_set, read_yaml
from .rates import PlanConfig
from .sections import EvalSection, FinetuneSection, StageSection, TrainSection, resolved


class ModelSection(Config):
    """The model to start from: a checkpoint folder, or a tiny twin built on the spot."""

    path: str | None = Field(
        None, description="A checkpoint's folder, or a Hugging Face name.", examples=["FILL IN: the model's folder"]
    )
    twin: TinyModelConfig | None = Field(None, description="In its place: a tiny random model, built on the spot.")

    @model_validator(mode="after")
    def _one(self) -> "ModelSection":
        if (self.path is None) == (self.twin is None):
            raise ValueError("give exactly one of path (a LLaVA checkpoint) and twin (a tiny random one)")
        return self


class PickSection(Config):
    """A pick rule in place of a method's own."""

    rule: str = Field(description="One of `vinnow rules`.", examples=["round_robin"])
    config: dict[str, Any] = Field({}, description="The rule's own fields.")


class SelectorSection(Config):
    """One selector of the sweep and its own config."""

    name: Name = Field(description="The method: one of `vinnow selectors`.", examples=["random"])
    config: dict[str, Any] = Field({}, description="The method's own fields.")
    label: Name = Field(
        default_factory=lambda fields: fields.get("name", ""),
        description="What picks, trials and the report call it; left out: the method's name. All are compared "
        "with the one labelled `random`.",
    )
    reads: dict[str, FeatureName] = Field(
        {},
        description="Need → the feature that it means, where the run makes that kind under another name: "
        "{gradient: grad_layer12}.",
    )
    pick: PickSection | None = Field(
        None,
        description="A pick rule in place of the method's own; a list of them (`own` is the method's) is a selector each, "
        "labelled LABEL-RULE, of scores that are made once.",
    )

    def method(self, where: str = "selectors") -> Picker:
        """Return the selector that it means.

        Raises:
            InputError: unknown selector, rule or field; a rule that does not fit.
        """
        method = registry.make(self.name, self.config, f"{where}.config")
        if self.pick is None:
            return method
        return with_rule(method, self.pick.rule, self.pick.config, f"{where}.pick.config")

    @model_validator(mode="after")
    def _free(self) -> "SelectorSection":
        # files of a seed are called LABEL-sSEED, and the whole pool beside the choices is called full
        if self.label != self.name and (re.search(r"-s\d+$", self.label) or self.label.lower() == "full"):
            raise ValueError(f"{self.label!r} is what something else is called; take another label")
        return self

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Show what is said beyond the defaults: stages know their inputs by it, also those of older versions."""
        for name, value in super().__repr_args__():
            if name in ("name", "config") or value not in (self.name, {}, None):
                yield name, value


class SweepSection(Config):
    """How the fine-tunes are run."""

    concurrent: int = Field(1, ge=1, description="Fine-tunes that run at a time.")
    full: bool = Field(True, description="Fine-tune on the whole pool too.")
    search: Literal["grid", "asha", "successive"] = Field(
        "grid",
        description="`grid`: every choice is trained with every seed. `successive`: after each seed, one choice in `eta` "
        "of a budget goes on to the next; `asha`: the same without waiting for all. Random and the whole pool always "
        "go on; what is dropped is told, and in no verdict.",
    )
    eta: int = Field(
        3, ge=2, description="With `successive` and `asha`: one choice in so many goes on to the next seed."
    )
    rung_share: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="With `successive` and `asha`: the share of the test set's pictures whose questions decide which "
        "choices go on, and are in no verdict.",
    )
    device_hours: float | None = Field(
        None,
        gt=0,
        description="GPU-hours (where no GPU is used, CPU-hours) that all fine-tunes may hold: none begins that is not "
        "expected to fit into the rest, and exit code 3 says that some were not run; more of it goes on. null: no limit.",
    )
    trackers: list[Literal["mlflow", "wandb"]] = Field(
        [],
        description="What gets each trial's choice, curve and result beside TensorBoard; servers and keys come from "
        "their own environment variables. Needs `vinnow[track]`.",
    )
    tracker_project: str = Field("vinnow", min_length=1, description="The project's name there.")

    @model_validator(mode="after")
    def _once(self) -> "SweepSection":
        if len(set(self.trackers)) != len(self.trackers):
            raise ValueError("trackers: name each once")
        return self


# what every library that draws takes
Seed = Annotated[StrictInt, Field(ge=0, lt=2**32)]


class RunConfig(Config):
    """The whole run. Sections named after a room are that room's config.

    A training section (`warmup[].train`, `proxy`, `finetune`) may name a published `recipe`: its fields lie under the
    section's own.
    """

    out: str = Field(description="The folder of all that the run makes; the same command goes on where it stopped.")
    seed: Seed = Field(0, description="Decides the trainings before the choices.")
    ray: RayConfig = Field(RayConfig(), description="Where it runs.")
    pool: IngestConfig = Field(description="What is chosen from.")
    captions: IngestConfig | None = Field(None, description="Rows for warm-up trainings.")
    target: IngestConfig | None = Field(
        None, description="Rows of the tasks aimed at, for selectors that read targets."
    )
    test: IngestConfig = Field(description="What the fine-tuned models are asked.")
    held_out: HeldOut | None = Field(None, description="What is held out of the pool's source where no other is named.")
    model: ModelSection = Field(
        description="What the run begins with; in a file or --set a folder alone may stand here."
    )
    warmup: list[StageSection] = Field([], description="Trainings before the proxy, in order.")
    proxy: TrainSection | None = Field(
        None,
        description="The training at whose checkpoints features are taken; null: features are taken at the model "
        "that warm-up left.",
    )
    features: list[SerializeAsAny[FeatureConfig]] = Field([], description="What is computed of each row.")
    actors: ActorResources = Field(ActorResources(), description="What the feature stage may take.")
    selectors: list[SelectorSection] = Field(description="What chooses.", examples=[[{"name": "random"}]])
    budgets: list[int | str] = Field(description='Shares of the pool ("5%"), or numbers of rows.', examples=[["5%"]])
    seeds: list[Seed] = Field([0], description="One choice and one fine-tune for each.")
    finetune: FinetuneSection = Field(description="How each choice is trained on, in one way or in several `variants`.")
    evaluate: EvalSection = Field(EvalSection(), description="How the fine-tuned models are asked.")
    sweep: SweepSection = Field(SweepSection(), description="How the fine-tunes are run.")
    plan: PlanConfig = Field(PlanConfig(), description="How `vinnow plan` prices the run.")
    devices: Devices | None = Field(None, description="What --gpus found, from which open places were filled.")

    @field_validator("out")
    @classmethod
    def _placed(cls, out: str) -> str:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)", out):  # it would be a folder of that name, here
            raise ValueError(f"{out!r} is neither a folder nor a URI, which has two slashes: s3://bucket/run")
        return out.removeprefix("file://") if out.startswith("file:///") else out

    @field_validator("seeds")
    @classmethod
    def _apart(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"{seeds} names a seed twice: it would be one result, not two")
        return seeds

    def digest(self) -> str:
        """Return 16 hexadecimal digits of the resolved tree.

        Where it runs, what that was priced at, how much may be refused and where a pool's pictures lie now is no matter.
        """
        free: dict[str, Any] = dict.fromkeys(("out", "ray", "plan", "devices", "held_out"), True)
        tree = self.model_dump(exclude=free | {"actors": {"inline_parts"}})
        pools = {"pool", "captions", "target", "test"}
        tree["features"] = [_ONCE_OF_ALL | _unless(f, name=f["kind"]) for f in tree["features"]]
        tree["sweep"] = _unless(tree["sweep"], **_SWEEP_ONCE)
        tree |= {n: _unless(tree[n], share=None) for n in pools if tree[n]}
        tree["selectors"] = [_unless(s, label=s["name"], reads={}, pick=None) for s in tree["selectors"]]
        kept = {k: _without(v, ("max_refused",) if k in pools else PLACES) for k, v in tree.items()}
        return digest(json.dumps(kept, sort_keys=True))


# the sections that name a data set; each is ingested into the folder of its name
POOLS = ("pool", "captions", "target", "test")
# fields of a stage that change no number: what may be missing, and where the pictures of a pool that is there lie now
PLACES = ("max_refused", "max_part_retries", "image_root", "target_image_root")
# rows of a pool that no budget in rows exceeds: whether one fits is seen when the pool is there
_ANY_POOL = 10**12
# what a sweep did before it could do otherwise
_SWEEP_ONCE: dict[str, Any] = {"search": "grid", "eta": 3, "rung_share": 0.2, "device_hours": None}
_SWEEP_ONCE |= {"trackers": [], "tracker_project": "vinnow"}
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


def resolve(values: dict[str, Any], sets: list[str] | None = None, elsewhere: bool = False) -> RunConfig:
    """Build and check a run from plain values; `elsewhere`: it runs where its model may be seen, and need not be here."""
    for entry in sets or []:
        apply_set(values, entry)
    refuse_blanks(values)
    values = with_held_out(with_model(values))
    if not elsewhere:
        refuse_recipes(values)
    run = RunConfig.parse(fitted(resolved(expanded(values)), elsewhere))
    _refuse_empty(run)
    _refuse_twice_named(run)
    for stage in run.warmup:
        if stage.data == "captions" and run.captions is None:
            raise InputError(f"warmup.{stage.name} trains on captions, but the run has no `captions` section.")
    if run.sweep.search != "grid" and len(run.seeds) < 2:
        raise InputError(
            f"sweep.search: {run.sweep.search} drops choices between seeds, and there is one: give seeds: [0, 1, 2]."
        )
    _check_selectors(run)
    return run


def saved_run(run_dir: str) -> dict[str, Any]:
    """Return what a run's folder says of its run: `digest`, the resolved `config`, `version`.

    Raises:
        DamagedError: something else lies in its run.json's place.
    """
    kinds = {"digest": str, "config": dict[str, Any], "version": str | None}
    kinds |= {"history": list[dict[str, Any]] | None}
    fields = read_fields(join(run_dir, "run.json"), "run's config", "Put it back, or begin in another `out`.", **kinds)
    return fields | {"config": _of_their_kinds(fields["config"])}


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


def _refuse_twice_named(run: RunConfig) -> None:
    for where, sections in (("warmup", run.warmup), ("features", run.features)):
        names = [s.name.lower() for s in sections]  # some file systems tell no case apart
        for name in names:
            if names.count(name) > 1:
                raise InputError(
                    f"{where}: {name!r} is there twice; folders are called after it, so give each its own name."
                )


def _refuse_empty(run: RunConfig) -> None:
    examples = {"selectors": "{name: random}", "budgets": '"5%"', "seeds": "0"}
    for name, example in examples.items():
        if not getattr(run, name):
            raise InputError(f"{name} is an empty list, and then nothing is chosen: name one or more, as [{example}].")


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
    for number, section in enumerate(run.selectors):
        if labels.count(section.label.lower()) > 1:  # files and trials are called after it
            raise InputError(f"selector {section.label!r} is listed twice; give each a label of its own.")
        if section.label != section.name and section.label in registry.names():
            raise InputError(f"selector {section.name!r}: the label {section.label!r} is another method's name.")
        method = section.method(f"selectors.{number}")
        needs = method.needs.called(section.reads)
        if needs.targets and run.target is None:
            raise InputError(f"selector {section.label!r} reads targets, but the run has no `target` section.")
        for need in needs.features:
            _check_need(run, section, need)


def _check_need(run: RunConfig, section: SelectorSection, need: str) -> None:
    """See that the run makes what a selector reads."""
    features, name = {f.name: f for f in run.features}, section.reads.get(need, need)
    if name not in features:
        alike = [f.name for f in run.features if f.kind == need]
        hint = f" Say which with `reads: {{{need}: {alike[0]}}}`." if alike else ""
        wanted = f"{need!r} features" + (f" (by the name {name!r})" if name != need else "")
        raise InputError(f"selector {section.label!r} needs {wanted}; `features` makes {sorted(features)}.{hint}")
    if need in section.reads and features[name].kind != need:
        raise InputError(f"selector {section.label!r} reads {need!r}; {name!r} is of kind {features[name].kind!r}.")
    # one model, whose learning rate nobody knows, is no path
    if run.proxy is None and kind_of(features[name]).along:
        raise InputError(
            f"selector {section.label!r} goes by {name} features at a proxy's checkpoints and their learning rates, "
            "but the run has no `proxy` section."
        )
