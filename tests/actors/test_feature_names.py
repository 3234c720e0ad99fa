"""A feature's name apart from its kind: several of one kind live side by side, and default names change nothing."""

import numpy as np
import pytest
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.stream import make_spec, run_inline
from vinnow.pipelines.runs.config import resolve
from vinnow.pipelines.runs.opening import start
from vinnow.pipelines.runs.stages import stages_of
from vinnow.pipelines.runs.status import status
from vinnow.store.errors import InputError
from vinnow.store.features import FeatureSet
from vinnow.store.files import read_json, write_json
from vinnow.store.manifest import Manifest
from vinnow.store.refusals import usage_of

RUN = {
    **{"out": "-", "pool": {"source": "-"}, "test": {"source": "-"}, "target": {"source": "-"}, "model": {"twin": {}}},
    **{"proxy": {"checkpoint_count": 3}, "budgets": ["10%"], "finetune": {"parts": ["projector"]}},
    "selectors": [{"name": "random"}, {"name": "less", "config": {"targets": ["color"]}}],
    "features": [
        {"kind": "gradient", "projection": {"dim": 512}, "dtype": "float16"},
        {"kind": "influence"},
        {"kind": "trajectory", "max_len": 256},
        {"kind": "loss"},
        {"kind": "embedding", "pooling": "both"},
    ],
}
# of the version in which all kinds had one config and no names
DIGEST = "599708902c5feff3"
ONCE = {"which": "projector", "mode": "sgd", "unit_rows": True, "top_k": 5, "attention": "flat", "pooling": "text"}
ONCE |= {"projection": {"kind": "rademacher", "dim": 8192, "seed": 0, "nonzeros": 2}}


def make(pool, model, out, aim=None, **values):
    config = FeatureConfig.parse({"rows_per_part": 16, "token_budget": 900} | values)
    spec = make_spec(pool, [CheckpointRef(1, model)], config, str(out), target_pool=aim)
    run_inline(spec)
    return spec


def test_two_of_a_kind_lie_side_by_side(tiny_pool, tiny_model, tmp_path):
    plain = make(tiny_pool, tiny_model, tmp_path, kind="loss")
    short = make(tiny_pool, tiny_model, tmp_path, kind="loss", name="loss_short", max_len=40, max_refused=1)
    assert [k.kind for k in (*plain.keys, *short.keys)] == ["loss", "loss"]
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("loss")) == ["loss", "loss_short"]
    assert len(FeatureSet(tmp_path, "loss").load(1).ids) == 60
    ids = FeatureSet(tmp_path, "loss").load(1).ids
    # what one could not feed is on its own list
    assert usage_of(tmp_path, ["loss"], ids).refused == {}
    assert sum(usage_of(tmp_path, ["loss_short"], ids).refused.values()) > 0
    assert run_inline(plain).parts == 0
    assert run_inline(short).parts == 0


def test_a_name_changes_no_number(tiny_pool, target_pool, tiny_model, tmp_path):
    small = {"kind": "influence", "which": "projector"}
    plain = make(tiny_pool, tiny_model, tmp_path, target_pool, **small)
    named = make(tiny_pool, tiny_model, tmp_path, target_pool, name="aimed", **small)
    other = make(tiny_pool, tiny_model, tmp_path, target_pool, name="aimed_sign", mode="sign", **small)
    assert plain.keys == named.keys
    one, two, three = (FeatureSet(tmp_path, n).load(1) for n in ("influence", "aimed", "aimed_sign"))
    assert np.array_equal(one.vec, two.vec)
    assert not np.array_equal(one.vec, three.vec)
    means = sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("target-means"))
    assert means == ["target-means", "target-means-aimed", "target-means-aimed_sign"]
    assert other.keys != plain.keys


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../x", "part of a path"),
        ("a/b", "part of a path"),
        ("", "part of a path"),
        ("x" * 200, "part of a path"),
        ("refused", "keeps something else under 'refused'"),
        ("Cut", "keeps something else"),
        ("tries", "keeps something else"),
        ("target-means-x", "keeps something else"),
    ],
)
def test_a_name_is_one_part_of_a_path_and_no_folder_of_the_store(name, words):
    with pytest.raises(InputError, match=words):
        FeatureConfig.parse({"kind": "loss", "name": name})


def test_stages_go_by_name():
    features = [{"projection": {"dim": 64}}, {"name": "grad_l1", "which": "re:layers.1", "projection": {"dim": 64}}]
    features += [{"kind": "loss"}, {"kind": "loss", "name": "loss_blind", "template": "plain"}]
    run = resolve(RUN | {"features": features})
    assert [n for n in [s.name for s in stages_of(run)] if "-" in n and "ingest" not in n] == [
        *("features-gradient", "targets-gradient", "features-grad_l1", "targets-grad_l1"),
        *("features-loss", "features-loss_blind"),
    ]
    for twice in ("loss", "LOSS"):
        with pytest.raises(InputError, match="features: 'loss' is there twice"):
            resolve(RUN | {"features": [*features, {"kind": "embedding", "name": twice}]})


def test_runs_of_before_go_on(tmp_path):
    run = resolve(RUN)
    assert run.digest() == DIGEST
    assert resolve(RUN | {"features": [f | {"name": f["kind"]} for f in RUN["features"]]}).digest() == DIGEST
    other = resolve(RUN | {"features": [*RUN["features"][:3], {"kind": "loss", "name": "x"}, RUN["features"][4]]})
    assert other.digest() != DIGEST
    # as it was saved: every feature with the fields of all kinds, one of them set where nothing read it
    run = run.model_copy(update={"out": str(tmp_path)})
    tree = run.model_dump(mode="json")
    tree["features"] = [ONCE | {k: v for k, v in f.items() if k != "name"} for f in tree["features"]]
    tree["features"][3]["top_k"] = 9
    write_json(tmp_path / "run.json", {"digest": "another", "config": tree, "version": "0.1.0"})
    start(run)
    assert read_json(tmp_path / "run.json")["digest"] == "another"
    assert {s.state for s in status(str(tmp_path))} == {"waiting"}
    otherwise = [*RUN["features"][:2], {"kind": "trajectory", "top_k": 3}, *RUN["features"][3:]]
    with Manifest(tmp_path, "0").stage("features-trajectory", {}):
        pass
    words = r"config: features\.trajectory\.max_len: was 256, is 2048; features\.trajectory\.top_k: was 5"
    with pytest.raises(InputError, match=words):
        start(resolve(RUN | {"out": str(tmp_path), "features": otherwise}))
