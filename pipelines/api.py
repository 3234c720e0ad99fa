"""The Python API: what `import vinnow` offers, for notebooks.

Thin over what the command line calls: the same files, the same errors, the same numbers to the last bit. Paths are folders
as the commands make them. Nothing is printed; what a command would say stands in what comes back. A second call with the
same arguments finds its work done. torch and Ray are imported by the calls that compute.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import pyarrow as pa

from ..actors.config import ActorResources, CheckpointRef
from ..pool.ingest import IngestConfig
from ..pool.ingest import ingest as _ingest
from ..pool.reader import Pool
from ..select import registry
from ..select.rule import Picker, with_rule
from ..select.run import load_scores, select_by
from ..select.view import View
from ..store.claim import claim
from ..store.errors import InputError, VinnowError
from ..store.usage import MAX_REFUSED
from .handles import Features, OpenPool, Picks
from .runs.picking import export_picks, make_view, told, traps

if TYPE_CHECKING:
    from ..evaluate.config import EvalReport, ShardsReport
    from ..train.run import TrainReport

__all__ = [
    "ActorResources",
    "Features",
    "InputError",
    "OpenPool",
    "Picks",
    "VinnowError",
    "ask",
    "compare",
    "features",
    "fine_tune",
    "ingest",
    "open_features",
    "open_pool",
    "pick",
    "score",
    "tiny_model",
]

# a pool's folder, or an open pool
PoolLike = str | Pool
# a model's folder; or proxy checkpoints by training step
Models = str | Mapping[int, str]


def ingest(source: str, out: str, images: str | None = None, **options: Any) -> OpenPool:
    """Turn records into a POOL folder, as `vinnow ingest` does, and open it.

    `images`: the folder or archive that image paths count from. `options`: fields of `IngestConfig` (`format`, `split`,
    `max_refused`, `check_images`, …).

    Raises:
        InputError: the source cannot be read, more than `max_refused` of its rows are unusable, an unknown option, or
            `out` holds something else.
    """
    _ingest(IngestConfig.parse({"source": source, "image_root": images} | options), out)
    return OpenPool(out)


def open_pool(path: str) -> OpenPool:
    """Open a POOL folder. Raises `InputError`: there is no finished pool."""
    return OpenPool(path)


def open_features(path: str, name: str) -> Features:
    """Open the features called `name` in a store. Raises `InputError`: there are none."""
    features = Features(path, name)
    features.steps()
    return features


def tiny_model(pool: PoolLike, out: str, **sizes: Any) -> str:
    """Build a LLaVA of some layers and random weights, as `vinnow twin` does, and return its folder: for trying things out.

    Its tokenizer learns the pool's words. `sizes`: fields of `TinyModelConfig` (`llm`, `tower`, `hidden`, `layers`, …).

    Raises:
        InputError: an unknown field, or `out` holds something else.
    """
    from ..models.family.of_llava.tiny import build_tiny_model, words_of
    from ..models.specs import TinyModelConfig

    config = TinyModelConfig.parse(sizes)
    with claim(out, "twin", inputs=[_path(pool)]):
        return build_tiny_model(out, words_of([Pool(_path(pool))]), config)


def features(
    pool: PoolLike, model: Models, out: str, kind: str = "gradient", on: ActorResources | None = None, **fields: Any
) -> Features:
    """Compute features of a pool's rows, as `vinnow features` does; finished parts are not computed again.

    `model`: a folder (step 0), or proxy checkpoints by step. `kind`: of `actors/kinds/`. `on`: None computes in this
    process, on the CPU; `vinnow.ActorResources(actors=2, gpus_per_actor=1)` is a pool of Ray actors. `fields`: the kind's
    own config (`name`, `which`, `mode`, `dtype`, …), and two that are none: `targets=True` says that the pool is a target
    set, whose tasks are kept; `target_pool` is what influence is measured against.

    Raises:
        InputError: no such kind or field, a checkpoint that cannot be loaded, features made otherwise in `out`, or more
            than `max_refused` of the rows refused.
    """
    from ..actors.cluster import RayConfig, ensure_ray
    from ..actors.config import FeatureConfig
    from ..actors.stream import make_spec, run_features, run_inline

    targets, target_pool = bool(fields.pop("targets", False)), fields.pop("target_pool", None)
    config = FeatureConfig.parse({"kind": kind} | fields)
    target_pool = None if target_pool is None else _path(target_pool)
    spec = make_spec(_path(pool), _checkpoints(model), config, out, targets=targets, target_pool=target_pool)
    if on is None:
        report = run_inline(spec)
    else:
        report = run_features(spec, on, connect=partial(ensure_ray, RayConfig()))
    return Features(spec.out, config.name, report)


class Reading(TypedDict, total=False):
    """What `score` and `pick` take by name; see `Choice`."""

    features: str | Features | None
    targets: str | Features | None
    config: Mapping[str, Any]
    label: str
    reads: Mapping[str, str]
    rule: str | None
    rule_config: Mapping[str, Any]
    seed: int
    max_refused: float


@dataclass(frozen=True)
class Choice:
    """A selector and what it reads.

    `features`, `targets`: feature stores (folders, or what `features` returned). `config`: the selector's own fields.
    `label`: what files call the choice; left out: the selector's name, or SELECTOR-RULE. `reads`: need → the feature
    that it means, of several of a kind. `rule`: a pick rule in place of the selector's own, with its own fields in
    `rule_config`. `max_refused`: the share of the pool's rows that may be without features.
    """

    pool: str
    selector: str
    features: str | Features | None = None
    targets: str | Features | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    reads: Mapping[str, str] = field(default_factory=dict)
    rule: str | None = None
    rule_config: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    max_refused: float = MAX_REFUSED

    @property
    def name(self) -> str:
        """What files call it."""
        return self.label or (self.selector if self.rule is None else f"{self.selector}-{self.rule}")

    def open(self) -> tuple[Picker, View]:
        """Return the selector, and the view of all that it may read. Raises: as `pick`."""
        method: Picker = registry.make(self.selector, dict(self.config))
        if self.rule is not None:
            method = with_rule(method, self.rule, dict(self.rule_config))
        elif self.rule_config:
            raise InputError(f"rule_config {dict(self.rule_config)} without a rule: name one (`rule`).")
        stores = _root(self.features), _root(self.targets)
        needs = method.needs.called(self.reads)
        return method, make_view(self.pool, *stores, needs, max_refused=self.max_refused)


def score(pool: PoolLike, selector: str, out: str, **reading: Unpack[Reading]) -> pa.Table:
    """Return a selector's SCORES (sample_id, target, group, score; higher is better), written to `out/scores/` too.

    Those that lie there already are read, if they were made of the same rows, features, config and code.

    Raises:
        InputError: as `pick`.
    """
    choice = Choice(_path(pool), selector, **reading)
    method, view = choice.open()
    with claim(out, "select", "picks", inputs=[choice.pool, _root(choice.features), _root(choice.targets)]):
        return load_scores(view, method, choice.seed, out, choice.name)


def pick(pool: PoolLike, selector: str, budget: int | str, out: str, **reading: Unpack[Reading]) -> Picks:
    """Choose rows, as `vinnow select` does: `out/picks/LABEL-BUDGET[-sSEED].parquet`, and `.json` in LLaVA's own format.

    `budget`: rows, or a share of those that have features ("10%"). Scores are computed once for all budgets.

    Raises:
        InputError: unknown selector, field or option value; a budget that does not fit; features missing or made
            otherwise; more than `max_refused` of the rows without features.
    """
    choice = Choice(_path(pool), selector, **reading)
    method, view = choice.open()
    stores = _root(choice.features), _root(choice.targets)
    with claim(out, "select", "picks", inputs=[choice.pool, *stores]):
        (path,) = select_by(view, method, choice.name, [budget], choice.seed, out).values()
        records = export_picks(choice.pool, path)
    said = [*told(choice.pool, stores[0], view), *traps(out, choice.name, choice.seed, view)]
    return Picks(path, records, tuple(said))


def fine_tune(
    recipe: str, model: str, pool: PoolLike, out: str, picks: Picks | str | None = None, **fields: Any
) -> "TrainReport":
    """Train a model on picks, or on the whole pool, as `vinnow train` does; one that was cut off goes on.

    `recipe`: a name of `train/recipes/`, or a YAML file; `fields` of `TrainConfig` lie over its own. Places that stay open
    (`workers`, `use_gpu`, …) are filled from the GPUs there are. One worker trains in this process, several through Ray
    Train. The report's `model` is the folder of the model that was made.

    Raises:
        InputError: an unknown recipe or field; model, pool and picks that do not fit; too many unusable rows.
    """
    from ..actors.cluster import RayConfig, ensure_ray
    from ..train.config import TrainConfig
    from ..train.environment import environment
    from ..train.run import train
    from .runs.begin import placed_training, require_workers
    from .runs.config import read_yaml
    from .runs.placing import find_devices

    values = read_yaml(recipe, "train")
    fields |= {"model": model, "pool": _path(pool)}
    if picks is not None:
        fields["picks"] = picks.path if isinstance(picks, Picks) else picks
    own = set(fields) | (set(values) if os.path.isfile(recipe) else set())
    config = TrainConfig.parse(placed_training(values | fields, own, find_devices(RayConfig(), "auto")))
    if config.workers == 1:
        for name, value in environment(config.threads, config.use_gpu).items():
            os.environ.setdefault(name, value)
        from ..train.solo import Bases, drop_states, fit_here

        report = train(config, out, fit=partial(fit_here, bases=Bases()))
        drop_states(out)
        return report
    ensure_ray(RayConfig())
    require_workers(config, "this training")
    return train(config, out)


def ask(
    model: str, pool: PoolLike | None = None, out: str = "", benchmark: str = "exact_match", **fields: Any
) -> "EvalReport | ShardsReport":
    """Answer a test pool greedily and score it, as `vinnow evaluate` does: EVALS at the report's `path`, a row a question.

    `files`, instead of a pool: the folder of the benchmark's official files, as `--files`, and `images`, that of their
    pictures; the benchmark's own figures are the report's `metrics`. `open` answers have no scores until they are judged.

    Other `fields` of `EvalConfig`; without `gpus_per_actor`, one actor per GPU of this machine, or one on the CPU. One
    actor answers in this process, several through Ray. The same again does nothing.

    Raises:
        InputError: no such model, benchmark or field, neither pool nor files or both, files that are not what they should
            be, or more rows than `max_refused` that cannot be asked.
    """
    from ..actors.cluster import RayConfig, ensure_ray
    from ..evaluate.config import OPEN, EvalConfig, OpenConfig
    from ..evaluate.open_answers import answer_open
    from ..evaluate.run import evaluate
    from ..models.check import checked_digest
    from ..models.folders import local_model
    from .runs.placing import find_devices, place_evaluation

    files, images = fields.pop("files", None), fields.pop("images", None)
    where = {"model": local_model(model), "run": checked_digest(model), "benchmark": benchmark}
    where |= _questions(pool, (files, images), benchmark, out, fields.get("max_refused", MAX_REFUSED))
    devices, is_open = find_devices(RayConfig(), "auto"), benchmark == OPEN
    kind = OpenConfig if is_open else EvalConfig
    config = kind.parse(place_evaluation(where | fields, devices, devices.gpus))
    if config.actors > 1:
        ensure_ray(RayConfig())
    return (answer_open if is_open else evaluate)(config, out, here=config.actors == 1)


def _questions(
    pool: PoolLike | None, files: tuple[str | None, str | None], benchmark: str, out: str, max_refused: float
) -> dict[str, Any]:
    """Return the pool to ask, and how long official answers are: of a pool, or of (official files, their pictures)."""
    from ..evaluate.official import prepare

    folder, images = files
    if not out:
        raise InputError("out=… names the folder that the answers go to.")
    if (pool is None) == (folder is None):
        raise InputError("ask a test pool (pool=…) or a benchmark's official files (files=…): name one of them.")
    if pool is not None:
        if images is not None:
            raise InputError("images=… goes with files=…; where a pool's pictures are now, image_root=… says.")
        return {"pool": os.path.abspath(_path(pool))}
    prepared = prepare(benchmark, str(folder), images, out, max_refused)
    return {"pool": prepared.pool, "max_new_tokens": prepared.benchmark.tokens}


def compare(evaluations: Sequence[str], seed: int = 0) -> list[dict[str, Any]]:
    """Hold evaluations of one test pool against the first, question by question, as `vinnow compare` does.

    Raises:
        InputError: they are of other questions.
    """
    from .comparing import compared

    return compared(list(evaluations), seed)


def _path(pool: PoolLike) -> str:
    return pool.root if isinstance(pool, Pool) else pool


def _root(store: str | Features | None) -> str | None:
    return store.root if isinstance(store, Features) else store


def _checkpoints(model: Models) -> list[CheckpointRef]:
    steps = {0: model} if isinstance(model, str) else model
    for step in steps:
        if not isinstance(step, int) or step < 0:
            raise InputError(f"checkpoints go by their training step, a whole number from 0 on, not {step!r}.")
    return [CheckpointRef(step, path) for step, path in steps.items()]
