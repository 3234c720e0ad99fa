"""Every family's tiny model in the feature actor: several checkpoints a pass, exact influence, resume."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tinies import RECORDS, each_family
from vinnow.actors import features
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.features import FeatureActor
from vinnow.actors.stream import make_spec, run_inline
from vinnow.models.components import add_lora, parameters_of, pick_linears, set_trainable
from vinnow.models.load import load
from vinnow.models.specs import LoraSpec
from vinnow.models.taps.forward import LossTap
from vinnow.pool.reader import Pool
from vinnow.store.features import FeatureSet
from vinnow.train.checkpoint import _write_adapter

OWN = {"gradient": {"which": "projector+lora", "projection": {"dim": 64}}, "influence": {"which": "projector+lora"}}


@pytest.fixture(scope="module")
def adapters_of(tiny_of, tmp_path_factory):
    """By family: two adapters of its tiny model, as a training leaves them."""
    done: dict[str, list[str]] = {}

    def adapters(name):
        if name not in done:
            t, done[name] = tiny_of(name), []
            for seed in (0, 1):
                torch.manual_seed(seed)
                model = add_lora(t.copy(), LoraSpec(r=2, alpha=4, init="gaussian"))
                set_trainable(model, ["lora"])
                for n, p in model.named_parameters():
                    if ".lora_B." in n:
                        torch.nn.init.normal_(p, std=0.05)
                model.peft_config["default"].base_model_name_or_path = t.path
                folder = str(tmp_path_factory.mktemp(f"{name}-adapter"))
                _write_adapter(model, folder, None)
                t.loaded.processor.save_pretrained(folder)
                done[name].append(folder)
        return done[name]

    return adapters


def spec_for(t, pool, kind, paths, out, **changes):
    config = FeatureConfig.parse(
        {"kind": kind, "template": t.template, "rows_per_part": 4, "token_budget": 900} | OWN.get(kind, {}) | changes
    )
    checkpoints = [CheckpointRef(i + 1, path) for i, path in enumerate(paths)]
    aim = pool if kind == "influence" else None
    return make_spec(pool, checkpoints, config, str(out), target_pool=aim)


def parts_of(out):
    return {
        f.relative_to(out): f.read_bytes() for f in sorted(Path(out).rglob("part-*.parquet")) if "refus" not in str(f)
    }


@pytest.mark.works("features of a pool, resumed to the last bit")
@each_family
def test_a_pool_has_features_and_what_is_lost_comes_back_the_same(tiny_of, adapters_of, mixed_pool, tmp_path, name):
    t, kind = tiny_of(name), "gradient"
    spec = spec_for(t, mixed_pool, kind, adapters_of(name)[:1], tmp_path)
    report = run_inline(spec)
    assert (report.rows, report.refused) == (len(RECORDS), 0)
    rows = FeatureSet(str(tmp_path), kind).load(1)
    assert sorted(rows.ids.tolist()) == sorted(Pool(mixed_pool).ids().tolist())
    assert np.isfinite(rows.vec).all()
    assert len(np.unique(rows.vec, axis=0)) > len(RECORDS) / 2
    whole = parts_of(tmp_path)
    assert len(whole) == 2
    # a worker that is killed leaves a part out: it is made again, alone, and is the same
    (tmp_path / list(whole)[1]).unlink()
    assert run_inline(spec).parts == 1
    assert parts_of(tmp_path) == whole
    assert run_inline(spec).parts == 0


@pytest.mark.works("several checkpoints a pass, the tower run once")
@each_family
def test_checkpoints_of_one_base_share_its_tower(tiny_of, adapters_of, mixed_pool, tmp_path, name, monkeypatch):
    t, paths, ran = tiny_of(name), adapters_of(name), []
    once = features.seen_once
    monkeypatch.setattr(features, "seen_once", lambda *a: ran.append(1) or once(*a))
    spec = spec_for(t, mixed_pool, "loss", paths, tmp_path / "both")
    actor, seen = FeatureActor(spec), []
    for model in actor.models.values():
        for tower in t.family.vision(model):
            tower.register_forward_hook(lambda *_: seen.append(1))
    batches = [
        batch
        for part in Pool(mixed_pool).shards(4)
        for _, batch in actor.batches(actor.loader.load(part.name), counts())
    ]
    shown = sum(bool(batch["media"]) for batch in batches)
    for part in Pool(mixed_pool).shards(4):
        actor.compute(part.name, [1, 2])
    assert actor.one_tower
    assert len(ran) == shown
    both = [FeatureSet(str(tmp_path / "both"), "loss").load(step).vec for step in (1, 2)]
    assert len(seen) == shown * len(t.family.vision(actor.first))
    assert np.abs(both[0] - both[1]).max() > 1e-6
    for i, path in enumerate(paths):
        np.testing.assert_allclose(both[i], LossTap(load(path).model)(t.batch()), rtol=1e-5)


def counts():
    return {"tokens": 0, "padded": 0}


@pytest.mark.works("influence")
@each_family
def test_influence_is_the_product_with_the_targets_mean_gradients(tiny_of, adapters_of, mixed_pool, tmp_path, name):
    t, path = tiny_of(name), adapters_of(name)[0]
    run_inline(spec_for(t, mixed_pool, "influence", [path], tmp_path))
    rows = FeatureSet(str(tmp_path), "influence").load(1)
    model = load(path).model
    wanted = list(parameters_of(pick_linears(model, "projector+lora")).values())
    for p in wanted:
        p.requires_grad_(True)
    grads = {}
    for record, number in zip(RECORDS, Pool(mixed_pool).ids().tolist(), strict=True):
        loss = model(**t.theirs(record, model)).loss
        each = torch.autograd.grad(loss, wanted, allow_unused=True)
        grads[number] = torch.cat([torch.zeros(p.numel()) if g is None else g.flatten() for g, p in zip(each, wanted)])
    tasks = dict(zip(Pool(mixed_pool).ids().tolist(), Pool(mixed_pool).column("task").tolist(), strict=True))
    means = []
    for task in sorted(set(tasks.values())):
        units = [g / g.norm() for number, g in grads.items() if tasks[number] == task]
        means.append(torch.stack(units).mean(0))
    expected = np.stack([[float(m @ grads[number]) for m in means] for number in rows.ids.tolist()])
    np.testing.assert_allclose(rows.vec, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(rows.norm, [float(grads[n].norm()) for n in rows.ids.tolist()], rtol=1e-4)
