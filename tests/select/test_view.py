"""The View's laws: exactly the pool's rows, only what is declared, only what was made alike."""

import copy

import numpy as np
import pytest
from vinnow.select.needs import Needs
from vinnow.store.errors import DuplicateRowsError, InputError, KeyMismatchError, MissingRowsError
from vinnow.store.features import FeatureBatch, write_shard
from vinnow.store.keys import recipe_text

NEEDS = Needs(("gradient", "trajectory", "loss"), targets=True)


def scan(view, kind="loss", step=10):
    return list(view.scan(kind, step))


def add_part(world, root, ids, step=10, name="part-9", **changes):
    ids = np.asarray(ids, np.uint64)
    batch = FeatureBatch(ids, np.ones(len(ids), np.int32), np.ones((len(ids), 1), np.float32))
    write_shard(root / "features", world.key("loss", step, 1, **changes), name, batch, "float32")


def test_ids_ascend_and_columns_and_features_follow(world, written):
    view = world.view(written, NEEDS, np.random.default_rng(3).permutation(world.n))
    order = np.argsort(world.ids)
    assert np.array_equal(view.ids, world.ids[order])
    assert view.ids.dtype == np.uint64
    assert view.ids.max() > 2**63
    assert view.column("n_chars").tolist() == order.tolist()
    assert np.array_equal(view.load("trajectory", 20), world.pool["trajectory"][20][order])
    assert view.steps("gradient") == list(world.steps)
    for batch in scan(view, "gradient"):
        assert np.array_equal(view.ids[batch.positions], batch.ids)


def test_a_scan_streams_part_by_part(world, written):
    assert [len(b.ids) for b in scan(world.view(written, NEEDS))] == [30, 30, 30]


@pytest.mark.parametrize("kind", ["gradient", "loss"])
@pytest.mark.parametrize("call", ["steps", "scan", "load", "weights", "targets"])
def test_an_undeclared_kind_is_refused(world, written, call, kind):
    view = world.view(written, Needs(("trajectory",)))
    arguments = [10] if call in ("scan", "load", "targets") else []
    with pytest.raises(InputError, match=f"reads '({kind}|targets)' but declares only"):
        list(getattr(view, call)(kind, *arguments))


def test_targets_must_be_declared_and_given(world, written):
    with pytest.raises(InputError, match="reads 'targets'"):
        world.view(written, Needs(("gradient",))).targets("gradient", 10)
    with pytest.raises(InputError, match="--targets"):
        world.view(written, NEEDS, targets_root=None).targets("gradient", 10)
    with pytest.raises(InputError, match="--features"):
        world.view(written, NEEDS, features_root=None).load("loss", 10)
    assert world.view(written, NEEDS).targets("gradient", 10).task.tolist() == world.tasks.tolist()


def test_checkpoints_may_be_cut_into_other_parts(world, tmp_path):
    for step, shuffle in zip(world.steps, (1, 2, 3), strict=True):
        apart = copy.copy(world)
        apart.pool = {"loss": {step: world.pool["loss"][step]}}
        apart.write(tmp_path, kinds=["loss"], shuffle=shuffle)
    view = world.view(tmp_path, NEEDS)
    for step in (10, 20, 30, 10):
        assert np.array_equal(view.load("loss", step), world.pool["loss"][step][np.argsort(world.ids)])


def test_missing_rows_are_counted(world, tmp_path):
    world.write(tmp_path, kinds=["loss"], rows=60)
    with pytest.raises(MissingRowsError, match="60 of 90"):
        scan(world.view(tmp_path, NEEDS))


def test_a_row_twice_is_refused_across_parts_and_inside_one(world, tmp_path):
    world.write(tmp_path, kinds=["loss"])
    add_part(world, tmp_path, [world.ids[4]])
    with pytest.raises(DuplicateRowsError):
        scan(world.view(tmp_path, NEEDS))
    add_part(world, tmp_path / "b", [world.ids[4], world.ids[4]])
    with pytest.raises(DuplicateRowsError):
        scan(world.view(tmp_path / "b", NEEDS))


def test_rows_of_another_pool_are_refused(world, tmp_path):
    world.write(tmp_path, kinds=["loss"])
    add_part(world, tmp_path, [12345])
    with pytest.raises(InputError, match="not in this pool, first sample_id 12345"):
        scan(world.view(tmp_path, NEEDS))


def test_refused_rows_may_be_there_or_not(world, written, tmp_path):
    refused = world.ids[60:65]
    view = world.view(written, NEEDS, refused=refused)
    assert len(view.ids) == len(view.column("source")) == world.n - 5
    seen = np.concatenate([b.ids for b in scan(view)])
    assert np.array_equal(np.sort(seen), view.ids)
    assert not np.isin(refused, seen).any()
    world.write(tmp_path, kinds=["loss"], rows=60)
    absent = world.view(tmp_path, NEEDS, refused=world.ids[60:])
    assert np.array_equal(absent.load("loss", 10)[:, 0].shape, (60,))


def test_checkpoints_of_two_recipes_are_not_mixed(world, tmp_path):
    world.write(tmp_path, kinds=["loss"])
    add_part(world, tmp_path, world.ids, step=40, recipe=recipe_text(mode="adam", seed=7))
    with pytest.raises(KeyMismatchError, match="recipe"):
        world.view(tmp_path, NEEDS).steps("loss")


def test_a_pool_with_an_id_twice_and_an_unknown_column_are_refused(world, written):
    with pytest.raises(DuplicateRowsError, match="1 of 91"):
        world.view(written, NEEDS, np.append(np.arange(world.n), 0))
    with pytest.raises(InputError, match="did you mean 'source'"):
        world.view(written, NEEDS).column("sources")


def test_weights_of_the_run_are_those_of_the_checkpoints_that_have_features(world, written):
    view = world.view(written, NEEDS, checkpoint_weights={10: 1, 20: 2, 30: 1, 99: 5})
    assert view.weights("gradient") == {10: 0.25, 20: 0.5, 30: 0.25}
    assert world.view(written, NEEDS).weights("loss") == pytest.approx(dict.fromkeys(world.steps, 1 / 3))
    with pytest.raises(InputError, match="missing \\[20, 30\\]"):
        world.view(written, NEEDS, checkpoint_weights={10: 1}).weights("gradient")


def test_norms_come_with_the_rows_and_without_the_refused_ones(world, written):
    view = world.view(written, Needs(("influence",)), refused=world.ids[60:65])
    norm = dict(zip(world.ids.tolist(), np.linalg.norm(world.pool["gradient"][10], axis=1), strict=True))
    for batch in scan(view, "influence"):
        assert batch.norm.tolist() == pytest.approx([norm[i] for i in batch.ids.tolist()], abs=1e-6)
    assert view.recipe("influence")["targets"]["tasks"] == ["color", "count", "shape"]
    with pytest.raises(InputError, match="declares only"):
        view.recipe("loss")
