"""Needs are typed, and met by features of other names; picks and scores go by a label."""

import numpy as np
import pytest
from vinnow.select import registry
from vinnow.select.needs import Needs
from vinnow.select.rows import columns_of
from vinnow.select.run import load_scores, scores_notes, select, select_by
from vinnow.store.errors import InputError
from vinnow.store.features import FeatureBatch, write_shard
from vinnow.store.tables import PICKS, read_rows

LESS = registry.make("less").needs


@pytest.fixture
def twice(world, tmp_path):
    """The world's features, and other gradients under the name `grad_l1`, for pool and targets."""
    world.write(tmp_path)
    rng = np.random.default_rng(8)
    for step in world.steps:
        for root, ids, tasks in (
            ("features", world.ids, None),
            ("targets", np.arange(8, dtype=np.uint64), world.tasks),
        ):
            vec = rng.normal(size=(len(ids), 12)).astype(np.float32)
            batch = FeatureBatch(ids, np.full(len(ids), 9, np.int32), vec, tasks)
            pool = {"pool": "t" * 16} if tasks is not None else {}
            write_shard(tmp_path / root, world.key("gradient", step, 12, **pool), "part-0", batch, "float32", "grad_l1")
    return tmp_path


def test_a_need_is_met_by_a_feature_of_another_name(world, twice):
    plain, other = world.view(twice, LESS), world.view(twice, LESS.called({"gradient": "grad_l1"}))
    less = registry.make("less")
    first, second = (columns_of(less.score(v, 0))[2] for v in (plain, other))
    assert not np.array_equal(first, second)
    # as if it were the only one, under its kind's name
    (twice / "alone").mkdir()
    for room in ("features", "targets"):
        (twice / "alone" / room).mkdir()
        (twice / room / "grad_l1").rename(twice / "alone" / room / "gradient")
    assert np.array_equal(columns_of(less.score(world.view(twice / "alone", LESS), 0))[2], second)


def test_what_is_read_must_be_there_and_of_the_kind(world, twice):
    with pytest.raises(InputError, match=r"reads: 'loss' in .* are loss features, and the selector reads 'gradient'"):
        world.view(twice, LESS.called({"gradient": "loss"})).steps("gradient")
    with pytest.raises(InputError, match="no 'grad_l2' features under"):
        world.view(twice, LESS.called({"gradient": "grad_l2"})).steps("gradient")
    with pytest.raises(InputError, match="needs no 'gradeint' features; did you mean 'gradient'"):
        LESS.called({"gradeint": "grad_l1"})


def test_scores_of_one_feature_are_not_taken_for_those_of_another(world, twice, tmp_path):
    less = registry.make("less")
    first = load_scores(world.view(twice, LESS), less, 0, str(tmp_path))
    other = load_scores(world.view(twice, LESS.called({"gradient": "grad_l1"})), less, 0, str(tmp_path))
    assert not first.equals(other)


def test_files_and_picks_go_by_the_label(world, written, tmp_path):
    view, out = world.view(written, LESS), str(tmp_path)
    plain = select(view, "less", {}, [5], 0, out)["5"]
    color = select_by(view, registry.make("less", {"targets": ["color"]}), "less_color", [5], 0, out)["5"]
    assert [p.rsplit("/", 1)[1] for p in (plain, color)] == ["less-5.parquet", "less_color-5.parquet"]
    first, second = read_rows(plain, PICKS), read_rows(color, PICKS)
    assert first["selector"].unique().to_pylist() == ["less"]
    assert second["selector"].unique().to_pylist() == ["less_color"]
    assert first.schema.metadata == second.schema.metadata
    assert (tmp_path / "scores" / "less_color.parquet").exists()
    assert scores_notes(out, "less_color", 0)["zero_rows"]
    alone = select(view, "less", {"targets": ["color"]}, [5], 0, str(tmp_path / "alone"))["5"]
    assert second.drop_columns("selector").equals(read_rows(alone, PICKS).drop_columns("selector"))
    with pytest.raises(InputError, match=r"label: '\.\./x' is no name"):
        select_by(view, registry.make("less"), "../x", [5], 0, out)


def test_needs_are_told_as_words():
    assert LESS.words() == ["gradient", "targets"]
    assert Needs(fields=("skill",)).words() == ["extra:skill"]
    assert LESS.called({"gradient": "x"}).names == ["x"]
    assert Needs(("a", "b")).called({"a": "b"}).names == ["b"]


def test_strings_with_a_prefix_are_refused(tmp_path, monkeypatch):
    code = "from vinnow.select.methods.random_ import Random\nclass Old(Random):\n    name = 'old'\n"
    (tmp_path / "old.py").write_text(code + "    needs = ('gradient', 'targets')\nSELECTOR = Old\n")
    monkeypatch.setenv("VINNOW_METHODS", str(tmp_path))
    with pytest.raises(InputError, match=r"old\.py: needs is a Needs\(features=…, targets=…, fields=…\)"):
        registry.names()
