"""LESS's traps are told: rows without a gradient, and checkpoints that weigh the same for want of learning rates."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.stream import make_spec, run_features
from vinnow.pipelines.runs.picking import make_view, traps
from vinnow.pool.reader import Pool
from vinnow.select.needs import Needs
from vinnow.select.rows import NOTES
from vinnow.select.run import select
from vinnow.store.learning_rates import of_checkpoint, read_rates, write_rates

RATES = {1: 0.004, 2: 0.001}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_model):
    """Two checkpoints of a training, with its report beside them."""
    folder = tmp_path_factory.mktemp("trained")
    for step in RATES:
        shutil.copytree(tiny_model, folder / f"checkpoint-{step}")
    kept = [{"step": s, "path": f"/elsewhere/checkpoint-{s}", "lr": lr} for s, lr in RATES.items()]
    (folder / "train.json").write_text(json.dumps({"checkpoints": kept}))
    return folder


@pytest.fixture(scope="module")
def stores(trained, tiny_pool, target_pool, ray_cluster, tmp_path_factory):
    out = tmp_path_factory.mktemp("stores")
    config = FeatureConfig(which="projector", projection={"kind": "rademacher", "dim": 32}, max_len=256)
    refs = [CheckpointRef(step, str(trained / f"checkpoint-{step}")) for step in RATES]
    for name, pool in (("features", tiny_pool), ("targets", target_pool)):
        run_features(make_spec(pool, refs, config, str(out / name), targets=name == "targets"))
    return out


def view_of(stores, pool):
    return make_view(pool, str(stores / "features"), str(stores / "targets"), Needs(("gradient",), targets=True))


def test_learning_rates_are_those_of_the_training_beside_the_checkpoints(stores, trained, tiny_model, tiny_pool):
    assert read_rates(str(stores / "features"), "gradient") == RATES
    assert view_of(stores, tiny_pool).checkpoint_weights == RATES
    assert of_checkpoint(tiny_model) is None


def test_rows_without_a_gradient_are_counted_where_picks_go(stores, tiny_pool, tmp_path):
    view = view_of(stores, tiny_pool)
    paths = select(view, "less", {}, ["20%"], 0, str(tmp_path))
    blind = int((~Pool(tiny_pool).has_image()).sum())
    (line,) = traps(str(tmp_path), "less", 0, view)
    assert line.startswith(f"{blind:,} of {len(view.ids):,} rows have no gradient and score 0: text-only rows")
    notes = json.loads(pq.read_schema(paths["20%"]).metadata[NOTES])
    assert notes["zero_rows"] == {str(s): blind for s in RATES}
    assert notes["checkpoint_weights"] == pytest.approx({"1": 0.8, "2": 0.2})


def test_equal_weights_are_told(stores, tiny_pool, tmp_path):
    shutil.copytree(stores, tmp_path / "s")
    (tmp_path / "s/features/gradient/learning_rates.json").unlink()
    view = view_of(tmp_path / "s", tiny_pool)
    assert view.checkpoint_weights is None
    select(view, "less", {}, ["20%"], 0, str(tmp_path))
    assert "2 checkpoints weigh the same: no training's report" in traps(str(tmp_path), "less", 0, view)[1]
    select(view, "less", {"checkpoint_weights": {1: 3, 2: 1}}, ["20%"], 0, str(tmp_path / "given"))
    assert len(traps(str(tmp_path / "given"), "less", 0, view)) == 1


def test_rates_are_kept_by_step_and_odd_reports_say_nothing(tmp_path):
    write_rates(str(tmp_path), "gradient", {5: 0.5, 6: None})
    write_rates(str(tmp_path), "gradient", {7: 0.25})
    assert read_rates(str(tmp_path), "gradient") == {5: 0.5, 7: 0.25}
    for text in ("[]", "{", '{"checkpoints": 3}', '{"checkpoints": [{"path": "checkpoint-9", "lr": "x"}]}'):
        (tmp_path / "train.json").write_text(text)
        assert of_checkpoint(str(tmp_path / "checkpoint-9")) is None
