"""What a feature run says of its rows: none used or many lost is a failure, and what was lost for a picture comes back."""

import numpy as np
import pytest
from pictures import make_records, write_records
from vinnow.actors import account, features
from vinnow.actors import ray_worker as ray_workers
from vinnow.actors.account import LostRowsError
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.features import FeatureActor
from vinnow.actors.loader import PartLoader, pack, unpack
from vinnow.actors.ray_worker import Attempts, ray_worker
from vinnow.actors.stream import make_spec, run_features, run_inline
from vinnow.models.projections.config import ProjectionConfig
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError, VinnowError
from vinnow.store.features import FeatureSet
from vinnow.store.refusals import read_refused, refused_ids
from vinnow.store.tries import PoisonError

LOSS = FeatureConfig(kind="loss", rows_per_part=5)


@pytest.fixture
def pool(tmp_path):
    """20 rows in 4 parts; every fifth has no picture."""
    source = write_records(tmp_path, *make_records(20))
    ingest(IngestConfig(source=source, image_root=str(tmp_path / "images")), str(tmp_path / "pool"))
    return tmp_path


def spec_of(folder, tiny_model, steps=(1,), config=LOSS, **changes):
    checkpoints = [CheckpointRef(s, tiny_model) for s in steps]
    return make_spec(
        str(folder / "pool"), checkpoints, config.model_copy(update=changes), str(folder / "out"), targets=False
    )


def stored(folder, kind="loss", step=1):
    return sorted(FeatureSet(folder / "out", kind).load(step).ids.tolist())


def every_id(folder):
    return sorted(Pool(str(folder / "pool")).ids().tolist())


def files(folder):
    return {p: p.stat().st_mtime_ns for p in (folder / "out").rglob("*.parquet")}


def test_a_missing_root_ends_the_run_before_a_row_is_refused(pool, tiny_model):
    (pool / "images").rename(pool / "moved")
    for work in (run_inline, lambda spec: run_features(spec, connect=lambda: pytest.fail("started Ray"))):
        with pytest.raises(InputError, match=r"pool '.*/pool': its image root '.*/images' is not there"):
            work(spec_of(pool, tiny_model))
    assert not files(pool)
    # the way out: name the new place; the features are the same ones
    report = run_inline(spec_of(pool, tiny_model, image_root=str(pool / "moved")))
    assert (report.usage.used, report.usage.refused) == (20, {})
    (pool / "moved").rename(pool / "images")
    assert run_inline(spec_of(pool, tiny_model)).parts == 0
    # a finished run reads no picture, so it needs none
    (pool / "images").rename(pool / "moved")
    assert run_inline(spec_of(pool, tiny_model)).skipped_parts == 4


def test_pictures_that_come_back_are_computed_and_only_they(pool, tiny_model):
    for n in (0, 1):
        (pool / f"images/pics/{n}.png").rename(pool / f"{n}.png")
    with pytest.raises(
        LostRowsError, match=r"loss features in .*: 10.0% of the rows were refused, .*image_missing 2"
    ) as lost:
        run_inline(spec_of(pool, tiny_model, steps=(1, 2)))
    report = lost.value.report
    # a row is refused once, at however many checkpoints
    assert (report.parts, report.refused, report.usage.used) == (8, 2, 18)
    before = files(pool)
    # nothing is back: nothing is computed, and it is still an error
    with pytest.raises(LostRowsError) as lost:
        run_inline(spec_of(pool, tiny_model, steps=(1, 2)))
    assert (lost.value.report.parts, lost.value.report.skipped_parts) == (0, 8)
    assert files(pool) == before
    # accepted as it is
    report = run_inline(spec_of(pool, tiny_model, steps=(1, 2), max_refused=0.1))
    assert (report.parts, report.skipped_parts, report.refused) == (0, 8, 2)
    (pool / "0.png").rename(pool / "images/pics/0.png")
    report = run_inline(spec_of(pool, tiny_model, steps=(1, 2)))
    assert (report.parts, report.skipped_parts, report.usage.refused) == (2, 6, {"image_missing": 1})
    assert len(refused_ids(pool / "out", ["loss"])) == 1
    (pool / "1.png").rename(pool / "images/pics/1.png")
    report = run_inline(spec_of(pool, tiny_model, steps=(1, 2)))
    assert (report.parts, report.usage.used, report.usage.refused) == (2, 20, {})
    assert stored(pool) == stored(pool, step=2) == every_id(pool)
    kept = {p for p, time in files(pool).items() if before.get(p) == time}
    assert len(kept) == 6
    assert not list((pool / "out/refused").rglob("*.parquet"))
    assert run_inline(spec_of(pool, tiny_model, steps=(1, 2))).parts == 0


def test_no_row_at_all_is_always_an_error(pool, tiny_model):
    for step in (1, 2):  # the second time all parts are there
        with pytest.raises(
            LostRowsError,
            match=r"not one row could be used \(not_encodable 16, no_trained_token 4; listed in .*/out/refused/loss",
        ):
            run_inline(spec_of(pool, tiny_model, max_len=8, max_refused=1))
        assert step
    assert stored(pool) == []


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_a_kill_while_a_part_is_made_anew_loses_no_row(pool, tiny_model, monkeypatch, when):
    (pool / "images/pics/0.png").rename(pool / "0.png")
    run_inline(spec_of(pool, tiny_model, max_refused=0.1))
    (pool / "0.png").rename(pool / "images/pics/0.png")
    name = {"before": "drop_shard", "between": "write_refused", "after": "write_shard"}[when]

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(features, name, killed)
        with pytest.raises(KeyboardInterrupt):
            run_inline(spec_of(pool, tiny_model))
    # whatever stands there: each row is in the table, in the list, or in a part that is missing
    listed = refused_ids(pool / "out", ["loss"]).tolist()
    assert sorted({*stored(pool), *listed}) == every_id(pool) or len(stored(pool)) == 15
    report = run_inline(spec_of(pool, tiny_model))
    assert (report.parts, report.refused) == (1, 0)
    assert stored(pool) == every_id(pool)


def test_rows_that_differ_between_checkpoints_are_noted(pool, tiny_model):
    run_inline(spec_of(pool, tiny_model))
    (pool / "images/pics/6.png").unlink()
    report = run_inline(spec_of(pool, tiny_model, steps=(1, 2)))
    assert report.notes == [
        "not the same rows are refused at every checkpoint: 0 at step 1, 1 at step 2; a row counts as refused at all"
    ]
    assert (report.refused, report.usage.refused) == (1, {"image_missing": 1})


LONG = "please look very closely at all of the shapes and colors that you can see here " * 12


@pytest.fixture
def targets(tmp_path):
    """Two tasks; every row of `long` loses its answer at 256 tokens."""

    def row(i, task, question):
        turns = [{"from": "human", "value": "<image>\n" + question}, {"from": "gpt", "value": "red"}]
        return {"id": i, "task": task, "image": f"pics/{i}.png", "conversations": turns}

    _, pictures = make_records(12)
    rows = [row(i, "long" if i < 2 else "short", LONG if i < 2 else "what color is it?") for i in (0, 1, 2, 3)]
    source = write_records(tmp_path, rows, pictures)
    ingest(IngestConfig(source=source, image_root=str(tmp_path / "images")), str(tmp_path / "pool"))
    return tmp_path


GRADIENT = FeatureConfig(kind="gradient", projection=ProjectionConfig(dim=32), max_len=256)


def test_a_target_task_without_a_row_left_is_named(targets, tiny_model, tmp_path):
    def spec(**changes):
        config = GRADIENT.model_copy(update=changes)
        return make_spec(
            str(targets / "pool"), [CheckpointRef(1, tiny_model)], config, str(tmp_path / "out"), targets=True
        )

    with pytest.raises(LostRowsError, match=r"50.0% of the rows were refused"):
        run_inline(spec())
    with pytest.raises(LostRowsError, match=r"target task 'long': not one row could be used \(\w+ 2; listed in"):
        run_inline(spec(max_refused=1))
    assert set(FeatureSet(tmp_path / "out", "gradient").load(1).task.tolist()) == {"short"}


def test_influence_names_the_target_task_that_it_lost(targets, tiny_model, tiny_pool, tmp_path):
    def spec(out, **changes):
        config = FeatureConfig(kind="influence", max_len=256).model_copy(update=changes)
        return make_spec(
            tiny_pool, [CheckpointRef(1, tiny_model)], config, str(tmp_path / out), target_pool=str(targets / "pool")
        )

    with pytest.raises(InputError, match=r"target task 'long': not one row could be used"):
        run_inline(spec("a", max_refused=1))
    assert read_refused(tmp_path / "a", "target-means").num_rows == 2
    # without its pictures the target pool is refused before anything is made
    (targets / "images").rename(targets / "moved")
    with pytest.raises(InputError, match=r"its image root '.*/images' is not there"):
        run_inline(spec("b", max_len=2048))
    assert not list((tmp_path / "b").rglob("*.safetensors"))
    report = run_inline(spec("b", max_len=2048, target_image_root=str(targets / "moved")))
    assert report.usage.used == 60


def test_rows_whose_answers_are_cut_are_counted(pool, tiny_model):
    spec = spec_of(pool, tiny_model)
    loader = PartLoader(spec)
    encoded = [e for name in loader.parts for e in loader.load(name).encoded]
    assert unpack(pack(loader.load(min(loader.parts)))).encoded[0].cut == 0
    lengths = sorted(len(e.input_ids) for e in encoded)
    short = lengths[-1] - 1
    count = sum(n > short for n in lengths)
    assert 0 < count < len(lengths)
    report = run_inline(spec_of(pool, tiny_model, max_len=short))
    assert report.notes == [
        f"{count} rows lost a part of their answers at max_len {short} (listed in {pool}/out/cut/loss)"
    ]
    assert run_inline(spec_of(pool, tiny_model, max_len=short)).notes == report.notes  # nothing was left to do


def test_a_damaged_part_is_computed_anew_and_told(pool, tiny_model):
    spec = spec_of(pool, tiny_model)
    run_inline(spec)
    before = FeatureSet(pool / "out", "loss").load(1)
    path = sorted((pool / "out/loss").rglob("part-*.parquet"))[1]
    path.write_bytes(path.read_bytes()[:-40])
    report = run_inline(spec)
    assert (report.parts, report.notes) == (1, [f"step 1: damaged parts are computed anew: {path.stem}"])
    assert FeatureSet(pool / "out", "loss").load(1).vec.tolist() == before.vec.tolist()


def test_a_part_that_kills_its_actor_ends_the_run_by_name(pool, tiny_model, monkeypatch):
    spec = spec_of(pool, tiny_model)
    actor = on_ray(spec)
    loader = actor.worker.loader
    name = sorted(loader.parts)[2]
    part = loader.parts[name]
    batch = {"part": np.array([name]), "place": np.array([loader.pool.place(part)]), "todo": np.array(["1"])}

    def die(*args):
        raise KeyboardInterrupt  # as far as a process can play it: nothing is cleaned up

    with monkeypatch.context() as patch:
        patch.setattr(ray_workers, "end", lambda *args: None)
        patch.setattr(FeatureActor, "_vectors", die)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                actor(batch)
    said = rf"computed loss of {name} \(rows {part.start} to {part.start + part.rows - 1} of the pool.* died 3 times"
    with pytest.raises(PoisonError, match=said):
        actor(batch)
    run_inline(spec)  # a new run counts anew
    assert actor(batch)["rows"].tolist() == [part.rows]


def on_ray(spec, kind=FeatureActor):
    """The actor as Ray Data has it."""
    return ray_worker(kind, Attempts(spec.out, spec.config.name, spec.config.max_part_retries))(spec=spec)


def test_what_a_start_raises_is_raised_by_the_first_call(tiny_pool, tiny_model, tmp_path):
    def broken(spec):
        raise InputError("no processor here")

    spec = make_spec(tiny_pool, [CheckpointRef(1, tiny_model)], LOSS, str(tmp_path))
    with pytest.raises(InputError, match="no processor here"):
        on_ray(spec, broken)({})
    assert isinstance(on_ray(spec).worker, FeatureActor)


@pytest.mark.parametrize("what", ["ours", "bug"])
def test_rays_wrapping_does_not_reach_the_terminal(pool, tiny_model, ray_cluster, capfd, monkeypatch, what):
    """The weights change after the driver made its keys; or the store's folder cannot be made on the worker."""
    spec = spec_of(pool, tiny_model)
    if what == "ours":
        (pool / "out/loss").mkdir(parents=True)
        key = spec.keys[0]
        object.__setattr__(spec, "checkpoints", (CheckpointRef(key.checkpoint, str(pool / "gone")),))
        with pytest.raises(InputError) as caught:
            run_features(spec)
        assert "gone" in str(caught.value)
    else:
        (pool / "out").mkdir()
        (pool / "out/loss").mkdir()
        (pool / f"out/loss/step={1:08d}").write_text("a file where a folder should be")
        monkeypatch.setattr(account, "shards_done", lambda *args: set())
        monkeypatch.setattr(account, "drop_damaged", lambda *args: [])
        with pytest.raises(VinnowError) as caught:
            run_features(spec)
    said = str(caught.value)
    assert "\n" not in said
    assert "ray::" not in said
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    assert "UDF failed" not in out + err
    assert "issues/new" not in out + err
