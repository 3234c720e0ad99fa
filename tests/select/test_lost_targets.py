"""A target task all of whose rows were refused is named, never left out in silence."""

import numpy as np
import pytest
from vinnow.select.methods.less import Less
from vinnow.select.needs import Needs
from vinnow.select.run import select
from vinnow.store.errors import InputError
from vinnow.store.features import FeatureBatch, write_shard
from vinnow.store.refusals import refused_tasks, usage_of, write_refused

NEEDS = Needs(("gradient",), targets=True)


@pytest.fixture
def lost(world, tmp_path):
    """The world's store, and two rows of a task `gone` that the target stage refused at every checkpoint."""
    world.write(tmp_path, kinds=("gradient",))
    rows = [(900, "", "not_encodable", "too long"), (901, "", "image_missing", "x.png")]
    for step in world.targets:
        write_refused(tmp_path / "targets", "gradient", step, "part-0", rows, {900: "gone", 901: "gone"})
    return tmp_path


def test_aiming_at_all_tasks_names_the_lost_one(world, lost):
    words = (
        r"target task 'gone' cannot be aimed at: 0 rows used, 2 refused \(image_missing 1, not_encodable 1; listed in"
    )
    for config in ({}, {"targets": ["gone"]}):
        with pytest.raises(InputError, match=words):
            select(world.view(lost, NEEDS), "less", config, [5], 0, str(lost / "out"))
    there = Less(Less.Config()).known_tasks(world.view(lost, NEEDS), next(iter(world.targets)))
    paths = select(world.view(lost, NEEDS), "less", {"targets": there}, [5], 0, str(lost / "out"))
    assert list(paths) == ["5"]
    with pytest.raises(InputError, match="has no task 'nowhere'"):
        select(world.view(lost, NEEDS), "less", {"targets": ["nowhere"]}, [5], 0, str(lost / "out"))


def test_a_target_set_without_any_row_left_names_its_task(world, tmp_path):
    world.write(tmp_path, kinds=("gradient",))
    for step, vec in world.targets.items():
        nothing = FeatureBatch(np.empty(0, np.uint64), np.empty(0, np.int32), vec[:0], np.empty(0, object))
        key = world.view(tmp_path, NEEDS)._targets("gradient").key(step)
        write_shard(tmp_path / "targets", key, "part-0", nothing, "float32")
        write_refused(tmp_path / "targets", "gradient", step, "part-0", [(900, "", "not_encodable", "")], {900: "gone"})
    with pytest.raises(InputError, match="target task 'gone' cannot be aimed at"):
        select(world.view(tmp_path, NEEDS), "less", {}, [5], 0, str(tmp_path / "out"))


def test_target_rows_that_come_back_make_new_scores(world, tmp_path):
    world.write(tmp_path, kinds=("gradient",))
    before = world.view(tmp_path, NEEDS).digest_facts()
    assert world.view(tmp_path, NEEDS).digest_facts() == before
    step, vec = next(iter(world.targets.items()))
    key = world.view(tmp_path, NEEDS)._targets("gradient").key(step)
    more = FeatureBatch(np.array([77], np.uint64), np.array([9], np.int32), vec[:1], np.array(["a"], object))
    write_shard(tmp_path / "targets", key, "part-1", more, "float32")
    assert world.view(tmp_path, NEEDS).digest_facts() != before


def test_a_row_refused_at_two_checkpoints_counts_once(tmp_path):
    rows = [(1, "", "image_missing", ""), (99, "", "image_missing", "of another pool")]
    for step in (1, 2):
        write_refused(tmp_path, "loss", step, "part-0", rows)
    write_refused(tmp_path, "gradient", 1, "part-0", [(1, "", "not_finite", ""), (2, "", "not_finite", "")])
    ids = np.arange(1, 11, dtype=np.uint64)
    assert usage_of(tmp_path, ["loss"], ids).line().startswith("9 rows used, 1 refused (image_missing 1; listed in")
    both = usage_of(tmp_path, ["loss", "gradient"], ids)
    assert (both.used, both.refused) == (8, {"image_missing": 1, "not_finite": 1})
    assert usage_of(tmp_path, ["loss"], ids, steps=[3]).refused == {}
    # lists of another vinnow name no tasks
    assert refused_tasks(tmp_path, "loss") == {"": {"image_missing": 2}}
