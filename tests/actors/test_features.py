"""The feature stage: one class run three ways, exactly once, refusing what it must, resuming where it stopped."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from pictures import make_records, write_records
from vinnow.actors.config import ActorResources, CheckpointRef, FeatureConfig
from vinnow.actors.features import FeatureActor
from vinnow.actors.loader import PartLoader, pack, unpack
from vinnow.actors.stream import CheckpointError, make_spec, run_features, run_inline
from vinnow.models.load import load
from vinnow.models.projections.config import ProjectionConfig
from vinnow.models.taps.gradients import GradientTap
from vinnow.models.taps.lean.architectures import TABLE
from vinnow.pool.images import load_image
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError, KeyMismatchError
from vinnow.store.features import FeatureSet
from vinnow.store.refusals import read_refused, refused_ids

KINDS = {
    "gradient": FeatureConfig(kind="gradient", projection=ProjectionConfig(dim=64), rows_per_part=16, token_budget=900),
    "trajectory": FeatureConfig(kind="trajectory", rows_per_part=16, token_budget=900),
    "loss": FeatureConfig(kind="loss", rows_per_part=16, token_budget=900),
    "embedding": FeatureConfig(kind="embedding", pooling="both", rows_per_part=16, token_budget=900),
}


def spec_for(tiny_pool, tiny_model, out, kind="gradient", **changes):
    config = KINDS[kind].model_copy(update=changes)
    checkpoints = [CheckpointRef(10, tiny_model), CheckpointRef(20, tiny_model)]
    return make_spec(tiny_pool, checkpoints, config, str(out))


def table(out, kind, step=10):
    rows = FeatureSet(out, kind).load(step)
    order = np.argsort(rows.ids)
    return rows.ids[order], rows.vec[order], rows.n_tokens[order]


# an embedding goes the way of a loss; a Ray of its own would take another ten seconds
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "embedding"])
@pytest.mark.parametrize("where", ["ray", "ray+loaders", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_the_same_class_gives_the_same_table_everywhere(tiny_pool, tiny_model, tmp_path, ray_cluster, kind, where):
    if (where == "ray+loaders" and kind != "gradient") or (where == "ray" and kind != "trajectory"):
        pytest.skip("loaders are the same for every kind; every kind on Ray without them: test_kind_contract.py")
    run_inline(spec_for(tiny_pool, tiny_model, tmp_path / "inline", kind))
    resources = ActorResources(
        actors=2, loaders=int(where == "ray+loaders"), gpus_per_actor=0.5 * (where == "gpu"), cpus_per_actor=1
    )
    report = run_features(spec_for(tiny_pool, tiny_model, tmp_path / "ray", kind), resources)
    ids, vec, tokens = table(tmp_path / "inline", kind)
    got_ids, got_vec, got_tokens = table(tmp_path / "ray", kind)
    assert np.array_equal(ids, np.sort(Pool(tiny_pool).ids()))
    assert np.array_equal(ids, got_ids)
    assert np.array_equal(tokens, got_tokens)
    np.testing.assert_allclose(got_vec, vec, rtol=1e-4 if where == "gpu" else 1e-6, atol=1e-6)
    assert np.abs(vec).max() > 0
    assert (report.rows, report.parts, report.refused) == (120, 8, 0)
    again = run_features(spec_for(tiny_pool, tiny_model, tmp_path / "ray", kind), resources)
    assert (again.rows, again.parts, again.skipped_parts) == (0, 0, 8)


@pytest.mark.parametrize("pooling", ["text", "image", "both"])
def test_an_embedding_is_as_wide_as_the_model(tiny_pool, tiny_model, tmp_path, pooling):
    """Half as many bytes on request; whatever it is batched with."""
    options = {"pooling": pooling, "dtype": "float16"}
    spec = spec_for(tiny_pool, tiny_model, tmp_path / "a", "embedding", **options)
    assert {k.dim for k in spec.keys} == {64 * (1 + (pooling == "both"))}
    run_inline(spec)
    run_inline(spec_for(tiny_pool, tiny_model, tmp_path / "b", "embedding", pooling=pooling, token_budget=1))
    ids, vec, _ = table(tmp_path / "a", "embedding")
    np.testing.assert_allclose(vec, table(tmp_path / "b", "embedding")[1], rtol=2e-3, atol=1e-4)
    assert FeatureSet(tmp_path / "a", "embedding").stored(10) == "float16"
    pool = Pool(tiny_pool)
    image = dict(zip(pool.ids().tolist(), pool.has_image(), strict=True))
    if pooling == "image":
        assert [bool(v.any()) for v in vec] == [image[i] for i in ids.tolist()]
    other = "text" if pooling == "image" else "image"
    with pytest.raises(KeyMismatchError, match="pooling"):
        run_features(spec_for(tiny_pool, tiny_model, tmp_path / "a", "embedding", pooling=other, dtype="float16"))


def test_only_the_missing_parts_are_computed(tiny_pool, tiny_model, tmp_path):
    spec = spec_for(tiny_pool, tiny_model, tmp_path)
    run_inline(spec)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("part-*.parquet")}
    whole = table(tmp_path, "gradient")
    lost = sorted(before)[3]
    lost.unlink()
    report = run_inline(spec)
    after = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("part-*.parquet")}
    assert report.parts == 1
    assert {p for p in after if after[p] != before[p]} == {lost}
    for a, b in zip(whole, table(tmp_path, "gradient"), strict=True):
        assert np.array_equal(a, b)


def test_vectors_do_not_depend_on_how_rows_are_batched(tiny_pool, tiny_model, tmp_path):
    run_inline(spec_for(tiny_pool, tiny_model, tmp_path / "a"))
    run_inline(spec_for(tiny_pool, tiny_model, tmp_path / "b", token_budget=1, rows_per_part=7))
    for a, b in zip(table(tmp_path / "a", "gradient"), table(tmp_path / "b", "gradient"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)


def test_text_only_rows_are_zero_for_the_projector_and_unit_otherwise(tiny_pool, tiny_model, tmp_path):
    run_inline(spec_for(tiny_pool, tiny_model, tmp_path))
    ids, vec, _ = table(tmp_path, "gradient")
    pool = Pool(tiny_pool)
    text = dict(zip(pool.ids().tolist(), [not h for h in pool.has_image()], strict=True))
    norms = np.linalg.norm(vec, axis=1)
    assert [n == 0 for n in norms] == [text[i] for i in ids.tolist()]
    assert np.allclose(norms[norms > 0], 1, atol=1e-5)


def test_features_of_another_model_are_refused(tiny_pool, tiny_model, tmp_path):
    spec = spec_for(tiny_pool, tiny_model, tmp_path)
    run_inline(spec)
    other = replace(spec, keys=tuple(replace(k, model="f" * 16) for k in spec.keys))
    with pytest.raises(KeyMismatchError, match="model: "):
        run_features(other)
    with pytest.raises(KeyMismatchError, match='"seed":1'):
        run_features(spec_for(tiny_pool, tiny_model, tmp_path, projection=ProjectionConfig(dim=64, seed=1)))
    with pytest.raises(InputError, match="rows_per_part"):
        run_features(spec_for(tiny_pool, tiny_model, tmp_path, rows_per_part=9))


def test_rows_that_cannot_be_fed_are_refused_with_a_reason_and_the_rest_goes_on(tmp_path, tiny_model):
    from vinnow.pool.ingest import IngestConfig, ingest

    records, pictures = make_records(20)
    source = write_records(tmp_path, records, pictures)
    ingest(IngestConfig(source=source, image_root=str(tmp_path / "images")), str(tmp_path / "pool"))
    (tmp_path / "images/pics/0.png").unlink()  # gone since the ingest
    (tmp_path / "images/pics/1.png").write_bytes((tmp_path / "images/pics/1.png").read_bytes()[:60])
    spec = spec_for(str(tmp_path / "pool"), tiny_model, tmp_path / "out", max_refused=0.1)
    run_inline(spec)
    refused = read_refused(tmp_path / "out", "gradient")
    assert sorted(set(refused["reason"].to_pylist())) == ["image_missing", "image_truncated"]
    bad = refused_ids(tmp_path / "out", ["gradient"])
    ids, _, _ = table(tmp_path / "out", "gradient")
    assert len(bad) == 2
    assert sorted([*ids.tolist(), *bad.tolist()]) == sorted(Pool(tmp_path / "pool").ids().tolist())


def test_a_packed_part_arrives_as_it_was(tiny_pool, tiny_model, tmp_path):
    loader = PartLoader(spec_for(tiny_pool, tiny_model, tmp_path))
    part = loader.load(next(iter(loader.parts)))
    part.refused.append((2**63, "s", "image_missing", 'it\'s "gone"'))
    got = unpack(pack(part))
    assert got.refused == part.refused
    assert got.tasks == part.tasks
    for a, b in zip(got.encoded, part.encoded, strict=True):
        assert a.sample_id == b.sample_id
        assert np.array_equal(a.input_ids, b.input_ids)
        assert np.array_equal(a.labels, b.labels)
        assert [{n: v.tolist() for n, v in p.items()} for p in a.media] == [
            {n: v.tolist() for n, v in p.items()} for p in b.media
        ]
    assert any(row.media for row in part.encoded)


@pytest.fixture
def two_pictures(tmp_path) -> str:
    """A pool of rows with two pictures, with one, and without."""
    from vinnow.pool.ingest import IngestConfig, ingest

    records, pictures = make_records(6)
    names = list(pictures)
    turns = [{"from": "human", "value": "is the <image> like the <image>?"}, {"from": "gpt", "value": "yes"}]
    records[1] |= {"image": names[:2], "conversations": turns}
    records[2] |= {"image": names[1::-1], "conversations": turns}
    source = write_records(tmp_path, records, pictures)
    ingest(IngestConfig(source=source, image_root=str(tmp_path / "images")), str(tmp_path / "pool"))
    return str(tmp_path / "pool")


def test_two_pictures_a_row_give_the_gradient_of_plain_autograd(two_pictures, tiny_model, tmp_path):
    """Batched, packed and unpacked, against Hugging Face's own loss at batch size 1."""
    actor = FeatureActor(spec_for(two_pictures, tiny_model, tmp_path / "out", precision="float64"))
    (name,) = actor.loader.parts
    payload = pack(actor.loader.load(name))
    assert actor.compute(name, [10], payload)["refused"] == 0
    ids = [e.sample_id for e in unpack(payload).encoded]
    tap = GradientTap(actor.first, "projector", ProjectionConfig(kind="none"))
    vec = tap(actor._collate(unpack(payload), list(range(len(ids)))))
    model = load(tiny_model, "float64").model
    params = [p for n in tap.modules for p in model.get_submodule(n).parameters()]
    model.requires_grad_(False)
    for p in params:
        p.requires_grad_(True)
    seen = []
    for record in Pool(two_pictures).take(ids):
        encoded = actor.loader.encoder.encode(record)
        shown = [actor.loader.encoder.reader.pixels(load_image(actor.loader.decoder.root, i)) for i in record.images]
        seen.append(len(shown))
        if not shown:
            continue
        loss = model(
            input_ids=torch.from_numpy(encoded.input_ids)[None],
            labels=torch.from_numpy(encoded.labels)[None],
            pixel_values=torch.from_numpy(np.stack(shown)).double(),
        ).loss
        grads = torch.autograd.grad(loss, params)
        expected = torch.cat([g.flatten() for g in grads]).numpy()
        assert np.abs(vec[ids.index(record.sample_id)] - expected).max() <= 1e-5 * np.abs(expected).max()
    assert sorted(seen) == [0, 1, 1, 1, 2, 2]


def test_pixels_shipped_as_bytes_are_those_of_the_processor(tiny_pool, tiny_model, tmp_path):
    loader = PartLoader(spec_for(tiny_pool, tiny_model, tmp_path, image_mode="square"))
    record = next(r for r in loader.pool.read(next(iter(loader.parts.values()))) if r.images)
    picture = load_image(loader.decoder.root, record.images[0])
    expected = loader.encoder.reader.images(picture, return_tensors="pt")["pixel_values"][0]
    assert torch.allclose(torch.from_numpy(loader.encoder.reader.pixels(picture)), expected, atol=1e-5)


PROJECTIONS = [
    ProjectionConfig(kind="rademacher", dim=64),
    ProjectionConfig(kind="sjlt", dim=64, nonzeros=2),
    ProjectionConfig(kind="kron", dim=64),
]


@pytest.mark.parametrize("projection", PROJECTIONS, ids=lambda p: p.kind)
def test_batches_of_one_and_of_sixteen_give_one_table(tiny_pool, tiny_model, tmp_path, projection):
    for rows in (1, 16):
        run_inline(spec_for(tiny_pool, tiny_model, tmp_path / str(rows), projection=projection, max_rows=rows))
    ids, vec, _ = table(tmp_path / "1", "gradient")
    other_ids, other_vec, _ = table(tmp_path / "16", "gradient")
    assert np.array_equal(ids, other_ids)
    assert np.abs(vec).max() > 0
    np.testing.assert_allclose(other_vec, vec, atol=2e-6)


def test_several_checkpoints_share_what_they_have_in_common(tiny_pool, tiny_model, tmp_path, monkeypatch):
    other = load(tiny_model)
    with torch.no_grad():
        for name, p in other.model.named_parameters():
            if "multi_modal_projector" in name:
                p.add_(0.1)
    other.model.save_pretrained(tmp_path / "later")
    other.processor.save_pretrained(tmp_path / "later")
    checkpoints = [CheckpointRef(10, tiny_model), CheckpointRef(20, str(tmp_path / "later"))]
    config = KINDS["gradient"]
    spec = make_spec(tiny_pool, checkpoints, config, str(tmp_path / "both"))
    actor = FeatureActor(spec)
    first, second = actor.models.values()
    shared = {n for n, p in second.named_parameters() if p.data_ptr() == dict(first.named_parameters())[n].data_ptr()}
    assert {n for n, _ in second.named_parameters()} - shared == {
        n for n, _ in first.named_parameters() if "projector" in n
    }
    assert actor.one_tower
    run_inline(spec)
    for checkpoint in checkpoints:
        alone = make_spec(tiny_pool, [checkpoint], config, str(tmp_path / "alone"))
        run_inline(alone)
        assert np.array_equal(
            table(tmp_path / "both", "gradient", checkpoint.step)[1],
            table(tmp_path / "alone", "gradient", checkpoint.step)[1],
        )


@pytest.mark.parametrize("where", ["inline", "ray"])
def test_a_checkpoint_that_cannot_be_loaded_is_named_and_the_others_stay(
    tiny_pool, tiny_model, tmp_path, where, request
):
    if where == "ray":
        request.getfixturevalue("ray_cluster")
    good, bad = tiny_model, shutil.copytree(tiny_model, tmp_path / "bad")
    weights = (bad / "model.safetensors").read_bytes()
    work = run_features if where == "ray" else run_inline

    def spec():
        # the damaged one comes first: nothing may hang on the first model
        checkpoints = [CheckpointRef(10, str(bad)), CheckpointRef(20, good), CheckpointRef(30, good)]
        return make_spec(tiny_pool, checkpoints, KINDS["trajectory"], str(tmp_path / "out"))

    planned = spec()
    # what the driver could not see: the file is cut while the run is under way
    (bad / "model.safetensors").write_bytes(weights[:10_000])
    with pytest.raises(InputError, match=r"bad/model\.safetensors' cannot be loaded"):
        spec()
    with pytest.raises(
        CheckpointError, match=r"1 of 3 checkpoints .* step 10 \(.*/bad\): .*cannot be loaded"
    ) as caught:
        work(planned)
    assert (caught.value.report.parts, caught.value.report.rows) == (8, 120)
    features = FeatureSet(tmp_path / "out", "trajectory")
    assert features.steps() == [20, 30]
    assert all(len(features.load(step).ids) == 60 for step in features.steps())
    # mended, only the missing one is computed
    (bad / "model.safetensors").write_bytes(weights)
    report = work(spec())
    assert (report.parts, report.skipped_parts * (where == "ray")) == (4, 8 * (where == "ray"))
    assert np.array_equal(features.load(20).vec, FeatureSet(tmp_path / "out", "trajectory").load(10).vec)


def test_a_row_whose_gradient_is_not_a_number_is_refused_alone(tiny_pool, tiny_model, tmp_path, monkeypatch):
    spec = spec_for(tiny_pool, tiny_model, tmp_path)
    bad = int(Pool(tiny_pool).ids()[5])
    collate_rows = FeatureActor._collate

    def broken(self, part, rows):
        batch = collate_rows(self, part, rows)
        for position, i in enumerate(rows):
            if part.encoded[i].sample_id == bad and batch["media"]:
                batch["media"]["pixel_values"][batch["image_owner"].tolist().index(position)] = float("nan")
        return batch

    run_inline(spec_for(tiny_pool, tiny_model, tmp_path / "clean"))
    monkeypatch.setattr(FeatureActor, "_collate", broken)
    run_inline(spec)
    ids, vec, _ = table(tmp_path, "gradient")
    clean_ids, clean_vec, _ = table(tmp_path / "clean", "gradient")
    assert bad not in ids.tolist()
    assert len(ids) == 59
    np.testing.assert_allclose(vec, clean_vec[clean_ids != bad], atol=1e-6)
    assert bad in refused_ids(str(tmp_path), ["gradient"]).tolist()
    assert set(read_refused(str(tmp_path), "gradient")["reason"].to_pylist()) == {"not_finite"}


@pytest.mark.parametrize("dtype", ["int8", "bit1"])
def test_quantised_features_tell_their_error(tiny_pool, tiny_model, tmp_path, dtype):
    report = run_inline(spec_for(tiny_pool, tiny_model, tmp_path, dtype=dtype))
    assert 0 < report.extra["storage_error"] < (0.02 if dtype == "int8" else 0.8)
    assert FeatureSet(tmp_path, "gradient").stored(10) == dtype
    with pytest.raises(KeyMismatchError):
        run_inline(spec_for(tiny_pool, tiny_model, tmp_path))


def test_what_ran_the_decoder_is_counted_and_told(tiny_pool, tiny_model, tmp_path, monkeypatch):
    lean = run_inline(spec_for(tiny_pool, tiny_model, tmp_path / "lean"))
    assert lean.ran == {"the lean decoder": lean.rows}
    assert f"{lean.rows:,} rows ran by the lean decoder" in lean.notes
    monkeypatch.delitem(TABLE, "LlamaModel")
    theirs = run_inline(spec_for(tiny_pool, tiny_model, tmp_path / "theirs"))
    way = "Hugging Face's code: the lean decoder does not know LlamaModel"
    assert theirs.ran == {way: theirs.rows}
    assert f"{theirs.rows:,} rows ran by {way}" in theirs.notes
    for mine, other in zip(table(tmp_path / "lean", "gradient"), table(tmp_path / "theirs", "gradient"), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)
    assert run_inline(spec_for(tiny_pool, tiny_model, tmp_path / "loss", "loss")).ran == {}


def test_targets_keep_their_tasks(target_pool, tiny_model, tmp_path):
    spec = make_spec(target_pool, [CheckpointRef(1, tiny_model)], KINDS["gradient"], str(tmp_path), targets=True)
    run_inline(spec)
    rows = FeatureSet(tmp_path, "gradient").load(1)
    pool = Pool(target_pool)
    tasks = dict(zip(pool.ids().tolist(), pool.column("task"), strict=True))
    assert [tasks[i] for i in rows.ids.tolist()] == rows.task.tolist()


def test_bad_configs_are_refused(tiny_pool, tiny_model, tmp_path):
    with pytest.raises(InputError, match="float16"):
        FeatureConfig.parse({"kind": "gradient", "dtype": "float16", "unit_rows": False})
    with pytest.raises(InputError, match="did you mean 'token_budget'"):
        FeatureConfig.parse({"tokens_budget": 3})
    with pytest.raises(InputError, match="no checkpoint"):
        make_spec(tiny_pool, [], KINDS["loss"], str(tmp_path))
    with pytest.raises(InputError, match="no such folder"):
        make_spec(tiny_pool, [CheckpointRef(1, "/nowhere")], KINDS["loss"], str(tmp_path))
    with pytest.raises(InputError, match="same step"):
        make_spec(tiny_pool, [CheckpointRef(1, tiny_model)] * 2, KINDS["loss"], str(tmp_path))
    with pytest.raises(InputError, match="no finished pool"):
        make_spec(str(tmp_path), [CheckpointRef(1, tiny_model)], KINDS["loss"], str(tmp_path))


def test_the_actor_takes_parts_without_ray(tiny_pool, tiny_model, tmp_path):
    spec = spec_for(tiny_pool, tiny_model, tmp_path, "loss")
    actor = FeatureActor(spec)
    name = next(iter(actor.loader.parts))
    assert actor({"part": name, "todo": "10,20"})["rows"] == 32
    assert FeatureSet(tmp_path, "loss").steps() == [10, 20]
