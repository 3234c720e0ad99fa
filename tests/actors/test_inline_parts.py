"""A pass of few parts is computed where it is asked for, if the run says so: as by actors, and without Ray."""

import pytest
import torch
from vinnow.actors.config import ActorResources, CheckpointRef, FeatureConfig
from vinnow.actors.features import FeatureActor
from vinnow.actors.stream import make_spec, run_features, run_inline
from vinnow.store.errors import InputError, VinnowError
from vinnow.store.files import list_files


class StartedError(Exception):
    """Ray would have been started."""


def connect():
    raise StartedError


def spec_in(out, pool, model):
    """Sixty rows are four parts; two checkpoints, each in a pass of its own."""
    config = FeatureConfig.parse({"kind": "loss", "rows_per_part": 16, "checkpoints_per_pass": 1})
    return make_spec(pool, [CheckpointRef(10, model), CheckpointRef(20, model)], config, str(out))


def files(out):
    return {p.rsplit("/loss/", 1)[1]: open(p, "rb").read() for p in list_files(str(out / "loss"), ".parquet", True)}


def test_few_parts_need_no_ray_and_are_the_same(tiny_pool, tiny_model, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        report = run_features(
            spec_in(tmp_path / "a", tiny_pool, tiny_model), ActorResources(actors=2, inline_parts=4), connect=connect
        )
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    run_inline(spec_in(tmp_path / "b", tiny_pool, tiny_model))
    assert (report.parts, report.rows) == (8, 120)
    assert len(files(tmp_path / "a")) == 8
    assert files(tmp_path / "a") == files(tmp_path / "b")


@pytest.mark.parametrize("most", [0, 3])
def test_more_parts_go_to_actors(tiny_pool, tiny_model, tmp_path, most):
    with pytest.raises(StartedError):
        run_features(spec_in(tmp_path, tiny_pool, tiny_model), ActorResources(inline_parts=most), connect=connect)


def test_what_goes_wrong_is_said_as_by_an_actor(tiny_pool, tiny_model, tmp_path, monkeypatch):
    def compute(*_):
        raise ZeroDivisionError("of a part")

    monkeypatch.setattr(FeatureActor, "compute", compute)
    with pytest.raises(VinnowError, match=r"of a part.*failure\.txt"):
        run_features(spec_in(tmp_path, tiny_pool, tiny_model), ActorResources(inline_parts=4), connect=connect)
    assert "ZeroDivisionError" in (tmp_path / "failure.txt").read_text()


def test_a_gpu_is_for_actors():
    with pytest.raises(InputError, match="inline_parts computes on a CPU"):
        ActorResources.parse({"inline_parts": 1, "gpus_per_actor": 1})
