"""The laws of a kind of feature, for all registered ones: a new file in `kinds/` is adopted unnamed."""

import pickle
import sys
from functools import cache
from typing import Literal, get_args, get_origin

import numpy as np
import pytest
from vinnow.actors import registry
from vinnow.actors.account import open_work
from vinnow.actors.config import ActorResources, CheckpointRef, FeatureConfig
from vinnow.actors.features import FeatureActor
from vinnow.actors.kind import Held, kind_of
from vinnow.actors.pool import Flow, Workers, run_shards
from vinnow.actors.stream import make_spec, run_features, run_inline
from vinnow.actors.target_means import TargetMeans, means_steps
from vinnow.models.cost import RowSize
from vinnow.models.encoding import make_encoder
from vinnow.models.load import load_processor
from vinnow.models.shape import read_shape
from vinnow.pipelines.runs.rates import PlanConfig, load_rates, rate_for
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError
from vinnow.store.features import FeatureSet

NAMES = registry.names()
SMALL = {"rows_per_part": 16, "token_budget": 900}
# where a kind as it comes would be slow here
OWN = {"gradient": {"projection": {"dim": 64}}}
# common fields by what they may change: the recipe's text, nothing but how it is stored, computed and accounted for
TEXT = {"template", "image_mode", "pictures", "max_len"}
FREE = {"name", "dtype", "token_budget", "max_rows", "rows_per_part", "checkpoints_per_pass"}
FREE |= {"image_root", "target_image_root", "max_refused", "max_part_retries"}
# another value of a field, where its type does not say one
OTHER = {"which": "lora", "template": "plain", "projection": {"dim": 96}}
each = pytest.mark.parametrize("name", NAMES)


def config_of(name, **changes):
    return FeatureConfig.parse({"kind": name} | SMALL | OWN.get(name, {}) | changes)


class AnyKind:
    """A worker of every kind's parts: the feature actor of a part's kind is made when its first part comes."""

    def __init__(self, specs):
        self.specs, self.actors = specs, {}

    def __call__(self, part):
        kind, spec = part["kind"], self.specs[part["kind"]]
        if kind not in self.actors:
            for aim in means_steps(spec) if spec.target_pool else []:
                TargetMeans(spec)(aim)
            self.actors[kind] = FeatureActor(spec)
        return self.actors[kind](part | {"part": part["own"]}) | {"kind": kind}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kinds")


@pytest.fixture(scope="module")
def spec_of(tiny_pool, target_pool, tiny_model, folder):
    def spec(name, out, **changes):
        aim = target_pool if registry.find(name).aims else None
        checkpoints = [CheckpointRef(1, tiny_model), CheckpointRef(2, tiny_model)]
        out = str(folder / out / name)
        return make_spec(tiny_pool, checkpoints, config_of(name, **changes), out, target_pool=aim)

    return spec


@pytest.fixture(scope="module")
def inline_of(spec_of):
    """By kind: the spec and the report of its first run in this process."""

    @cache
    def inline(name):
        spec = spec_of(name, "inline")
        return spec, run_inline(spec)

    return inline


@pytest.fixture(scope="module")
def on_ray(spec_of, ray_cluster, folder):
    """By kind: the spec of what one flow computed of all kinds on two actors, each part by its kind's feature actor."""
    from ray import cloudpickle

    specs = {name: spec_of(name, "ray") for name in NAMES}
    items = [
        {"kind": name, "own": item["part"]} | item
        for name in NAMES
        for item in open_work(specs[name]).items(specs[name])
    ]
    parts = [item | {"part": f"{item['kind']}-{item['own']}"} for item in items]
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    rows = list(run_shards(parts, [Workers(AnyKind, {"specs": specs}, count=2)], Flow("kinds", str(folder), "kinds")))
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert sorted((row["kind"], row["part"], row["refused"]) for row in rows) == sorted(
        (item["kind"], item["own"], 0) for item in items
    )
    return specs


def table(spec, step=1):
    rows = FeatureSet(spec.out, spec.config.kind).load(step)
    order = np.argsort(rows.ids)
    return rows.ids[order], rows.vec[order], rows.norm[order]


def other_values(name, config):
    """Yield values that a field does not have."""
    value, kind = getattr(config, name), type(config).model_fields[name].annotation
    if name in OTHER:
        yield OTHER[name]
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield value * 2
    elif get_origin(kind) is Literal:
        yield from (v for v in get_args(kind) if v != value)
    else:
        yield "elsewhere"


def changed(config, field):
    """Return the config with another value of a field, or None where it takes no other."""
    for value in other_values(field, config):
        try:
            return FeatureConfig.parse(config.model_dump() | {field: value})
        except InputError:
            continue
    return None


def test_the_suite_sees_every_kind():
    assert {"gradient", "influence", "trajectory", "loss", "embedding"} <= set(NAMES)
    assert set(FeatureConfig.model_fields) == TEXT | FREE | {"kind", "precision"}


@each
def test_vectors_are_finite_as_wide_as_said_and_do_not_depend_on_batches(spec_of, inline_of, tiny_pool, name):
    (one, report), other = inline_of(name), spec_of(name, "other", token_budget=1, rows_per_part=8)
    run_inline(other)
    ids, vec, norm = table(one)
    assert np.array_equal(ids, np.sort(Pool(tiny_pool).ids()))
    assert vec.shape == (60, one.keys[0].dim)
    assert np.isfinite(vec).all()
    assert np.abs(vec).max() > 0
    assert (report.rows, report.refused) == (120, 0)
    for mine, theirs in zip((ids, vec, norm), table(other), strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=2e-4, atol=1e-5 * np.abs(mine).max())
    # one model at two steps: what one leaves behind must not reach the next
    assert np.array_equal(vec, table(one, 2)[1])
    assert [k.digest() for k in one.keys] == [k.digest() for k in other.keys]
    assert run_inline(one).parts == 0


@each
def test_ray_gives_what_one_process_gives(inline_of, on_ray, name):
    inline, ray = inline_of(name)[0], on_ray[name]
    for mine, theirs in zip(table(inline), table(ray), strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=1e-6, atol=1e-6)
    report = run_features(ray, ActorResources(actors=2))
    assert (report.parts, report.skipped_parts, report.refused) == (0, 8, 0)


@each
def test_a_key_changes_with_the_numbers_and_with_nothing_else(tiny_model, name):
    processor = load_processor(tiny_model)

    def key(config):
        text = make_encoder(processor, config.template, config.max_len, config.image_mode, config.pictures).recipe()
        kind = kind_of(config)
        return kind.key_recipe(text), kind.dim(lambda: 64, 3)

    config = config_of(name)
    assert key(config) == key(FeatureConfig.parse(config.model_dump()))
    own = set(type(config).model_fields) - set(FeatureConfig.model_fields)
    tried = set()
    for field in sorted(own | TEXT | FREE | {"precision"}):
        other = changed(config, field)
        if other is not None:
            tried.add(field)
            assert (key(other) != key(config)) == (field not in FREE), field
    # a kind may be stored in one way alone
    assert tried >= (own | TEXT | FREE | {"precision"}) - {"dtype"}


@each
def test_it_has_a_price(tiny_model, name):
    kind, shape = kind_of(config_of(name)), read_shape(tiny_model)
    cost = kind.cost(shape, RowSize.fixed(60, labels=9), 3)
    assert cost.total > 0
    assert all(v >= 0 for v in cost.items.values())
    assert kind.memory(shape, Held(4, 60, 1, 3)) > 0
    assert rate_for(load_rates(PlanConfig()), kind.work, kind.projection).tflops > 0


@each
def test_what_it_does_not_have_is_refused_by_name(name):
    own = set(type(config_of(name)).model_fields)
    others = {f for n in NAMES for f in registry.find(n).Config.model_fields} - own
    for field in [*others, "nonsense"]:
        with pytest.raises(InputError, match=f"unknown field '{field}'"):
            config_of(name, **{field: 1})
    stored = type(config_of(name)).stores
    for dtype in {"float32", "float16", "int8", "bit1"} - set(stored):
        with pytest.raises(InputError, match="store them as float32"):
            config_of(name, dtype=dtype)
    assert "float32" in stored


@each
def test_what_it_needs_is_asked_for(tiny_pool, tiny_model, tmp_path, name):
    if registry.find(name).aims:
        with pytest.raises(InputError, match=f"{name} is measured against targets"):
            make_spec(tiny_pool, [CheckpointRef(1, tiny_model)], config_of(name), str(tmp_path))


@each
def test_its_config_travels(name):
    config = config_of(name, max_refused=0.5)
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301
    assert type(config.model_copy(update={"max_len": 99})) is type(config)
    targets = kind_of(config).for_targets()
    assert kind_of(targets).name == name
