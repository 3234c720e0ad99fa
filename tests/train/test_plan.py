"""What a training is made of, without Ray: order of rows, DeepSpeed's JSON, learning rates, batches, refusals."""

import json

import numpy as np
import pytest
import torch
from batches import inputs_of
from pictures import make_records, write_records
from vinnow.models.load import load
from vinnow.models.specs import LoraSpec
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError
from vinnow.train.config import TrainConfig
from vinnow.train.data import Batches, MicroBatches, Rows, make_ahead, refusals, stream
from vinnow.train.deepspeed_json import deepspeed_json
from vinnow.train.loss import LossModule
from vinnow.train.optimizer import lr_factor, make_optimizer
from vinnow.train.order import Order


def config(**changes):
    return TrainConfig.parse({"model": "m", "pool": "p", "global_batch": 16, "micro_batch": 4, "workers": 2} | changes)


def order_of(cfg, n=100, text_every=5):
    rng = np.random.default_rng(0)
    return Order(cfg, np.arange(n) % text_every != 0, rng.integers(10, 500, n))


def test_an_epoch_holds_every_row_and_only_the_last_batch_repeats():
    for grouped in (True, False):
        order = order_of(config(group_by_modality=grouped))
        rows = np.concatenate([order.batch(s) for s in range(order.per_epoch)])
        assert order.per_epoch == 7
        assert sorted(set(rows.tolist())) == list(range(100))
        assert sorted(rows[:100].tolist()) == list(range(100))
        again = np.concatenate([order.batch(order.per_epoch + s) for s in range(order.per_epoch)])
        assert not np.array_equal(rows, again)


def test_grouped_batches_are_of_one_modality_but_the_last():
    order = order_of(config(group_by_modality=True))
    mixed = [len(set(order.has_image[order.batch(s)].tolist())) > 1 for s in range(order.per_epoch)]
    assert mixed.count(True) <= 2
    assert not any(mixed[:5])


def test_micro_batches_do_not_depend_on_the_number_of_workers():
    two, one = order_of(config(workers=2)), order_of(config(workers=1))
    for step in (0, 3, 8):
        a = [two.micro_batch(step, acc, rank).tolist() for acc in range(2) for rank in range(2)]
        assert a == [one.micro_batch(step, acc, 0).tolist() for acc in range(4)]
    other = order_of(config(seed=1))
    assert not np.array_equal(other.batch(0), two.batch(0))


def test_fewer_rows_than_a_batch_still_fill_one():
    order = order_of(config(), n=3)
    assert len(order.batch(0)) == 16
    assert set(order.batch(0).tolist()) == {0, 1, 2}


def test_deepspeed_gets_every_number_from_the_config():
    deepspeed = deepspeed_json(config(zero_stage=3, precision="bfloat16", grad_clip=0.7))
    assert deepspeed["train_batch_size"] == 16
    assert deepspeed["gradient_accumulation_steps"] == 2
    assert deepspeed["train_micro_batch_size_per_gpu"] == 4
    assert deepspeed["zero_optimization"]["stage"] == 3
    assert deepspeed["bf16"]["enabled"]
    assert deepspeed["gradient_clipping"] == 0.7
    assert "offload_optimizer" not in deepspeed["zero_optimization"]
    deepspeed = deepspeed_json(config(zero_stage=3, offload="parameters"))["zero_optimization"]
    assert deepspeed["offload_optimizer"]["device"] == deepspeed["offload_param"]["device"] == "cpu"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"global_batch": 10}, "accumulation"),
        ({"template": "v2"}, "did you mean 'v1'"),
        ({"parts": []}, "parts"),
        ({"parts": ["lora"]}, "go together"),
        ({"checkpoint_count": 2, "checkpoint_steps": 5}, "not both"),
        ({"save_moments": True}, "checkpoint_count or checkpoint_steps"),
        ({"learning_rate": 1}, "unknown field 'learning_rate'"),
        ({"epoch": 1}, "did you mean 'epochs'"),
        ({"offload": "optimizer", "zero_stage": 0}, "needs zero_stage 1"),
        ({"offload": "parameters"}, "needs zero_stage 3"),
        ({"compile": True, "zero_stage": 3}, "cannot be compiled"),
        ({"trackers": ["wandb", "wandb"]}, "each once"),
        ({"trackers": ["tensorbord"]}, "tensorboard"),
    ],
)
def test_bad_configs_say_what_is_wrong(changes, words):
    with pytest.raises(InputError, match=words):
        config(**changes)


def test_steps_and_checkpoints_are_planned_from_rows():
    assert config(epochs=1.5).planned_steps(100) == 11
    assert config(max_steps=3).planned_steps(100) == 3
    assert config(checkpoint_count=3).planned_checkpoints(10) == [3, 7, 10]
    assert config(checkpoint_count=30).planned_checkpoints(2) == [1, 2]
    assert config(checkpoint_steps=4).planned_checkpoints(10) == [4, 8]
    last = config(checkpoint_steps=4, checkpoint_limit=2)
    assert [last.kept_checkpoints(18, done) for done in (3, 4, 12, None)] == [[], [4], [8, 12], [12, 16]]


def test_learning_rate_warms_up_and_falls():
    cfg = config(warmup_ratio=0.1)
    rates = [lr_factor(s, 100, cfg) for s in range(100)]
    assert np.argmax(rates) == 10
    assert rates[10] == 1
    assert rates[0] == 0
    assert rates[99] < 0.001
    assert lr_factor(99, 100, config(schedule="constant")) == 1
    assert lr_factor(50, 100, config(schedule="linear", warmup_ratio=0)) == 0.5


def test_parameter_groups_follow_llava(tiny_model):
    model = load(tiny_model).model
    optimizer = make_optimizer(list(model.named_parameters()), config(lr=1e-3, projector_lr=1e-4, weight_decay=0.1))
    groups = {(g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    assert groups == {(1e-3, 0.1), (1e-3, 0.0), (1e-4, 0.1), (1e-4, 0.0)}
    assert sum(p.numel() for g in optimizer.param_groups for p in g["params"]) == sum(
        p.numel() for p in model.parameters()
    )


def batches_of(tmp_path, tiny_model):
    source = write_records(tmp_path, *make_records(10))
    ingest(IngestConfig(source=source, image_root=str(tmp_path / "images")), str(tmp_path / "pool"))
    cfg = config(pool=str(tmp_path / "pool"), model=tiny_model)
    return Batches(cfg, Rows(cfg), load(tiny_model).processor, str(tmp_path / "refused.jsonl"))


def test_the_loss_is_that_of_hugging_face(tmp_path, tiny_model):
    batches = batches_of(tmp_path, tiny_model)
    model = load(tiny_model).model
    batch = batches.make(np.arange(10))
    expected = model(**inputs_of(batch, "input_ids", "attention_mask", "labels")).loss
    assert LossModule(model)(batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_step_on_a_row_of_two_pictures(tmp_path, tiny_model):
    """The batch's loss and gradients are those of Hugging Face's model on the same ids and both pictures."""
    records, pictures = make_records(4)
    two = {"image": list(pictures)[:2], "conversations": records[0]["conversations"]}
    two["conversations"][0]["value"] = "<image> what <image>"
    source = write_records(tmp_path, [two, *records[1:]], pictures)
    ingest(IngestConfig(source=source, image_root=str(tmp_path / "images")), str(tmp_path / "pool"))
    cfg = config(pool=str(tmp_path / "pool"), model=tiny_model)
    batches = Batches(cfg, Rows(cfg), load(tiny_model).processor, str(tmp_path / "refused.jsonl"))
    batch = batches.make(np.arange(4))
    owners = batch["image_owner"].tolist()
    assert sorted(map(owners.count, range(4))) == [1, 1, 1, 2]
    assert owners == sorted(owners)
    model, other = load(tiny_model).model, load(tiny_model).model
    loss = LossModule(model)(batch)
    loss.backward()
    expected = other(**inputs_of(batch, "input_ids", "attention_mask", "labels")).loss
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    both = (m.model.multi_modal_projector.parameters() for m in (model, other))
    for p, q in zip(*both, strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-4, atol=1e-6)


def test_text_only_and_unlabelled_batches_have_gradients_everywhere(tmp_path, tiny_model):
    batches = batches_of(tmp_path, tiny_model)
    text = np.flatnonzero(~batches.rows.has_image)
    batch = batches.make(text)
    assert not batch["media"]
    module = LossModule(load(tiny_model).model)
    loss = module(batch)
    loss.backward()
    assert loss.item() > 0
    projector = [p for n, p in module.named_parameters() if "multi_modal_projector" in n]
    assert all(p.grad is not None and not p.grad.any() for p in projector)
    batch["labels"][:] = -100
    assert module(batch).item() == 0


def test_text_only_batches_meet_their_gradients_in_the_same_order(tmp_path, tiny_model):
    """ZeRO-2 reduces buckets in the order in which gradients become ready; another order adds up different parameters."""
    batches = batches_of(tmp_path, tiny_model)
    orders = []
    for positions in (np.flatnonzero(batches.rows.has_image)[:3], np.flatnonzero(~batches.rows.has_image)):
        module = LossModule(load(tiny_model).model)
        ready: list[str] = []
        for name, parameter in module.named_parameters():
            if "vision_tower" in name:
                parameter.requires_grad_(False)
            else:
                parameter.register_post_accumulate_grad_hook(lambda p, name=name, ready=ready: ready.append(name))
        module(batches.make(positions)).backward()
        orders.append(ready)
    assert orders[0] == orders[1]
    assert any("multi_modal_projector" in n for n in orders[0])


def test_rows_that_cannot_be_used_are_dropped_and_listed(tmp_path, tiny_model):
    batches = batches_of(tmp_path, tiny_model)
    for picture in (tmp_path / "images/pics").iterdir():
        picture.unlink()
    image_rows = np.flatnonzero(batches.rows.has_image)
    batch = batches.make(image_rows)
    assert batch["input_ids"].shape == (1, 2)
    assert (batch["labels"] == -100).all()
    assert LossModule(load(tiny_model).model)(batch).item() == 0
    listed = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert {r["reason"] for r in listed} == {"image_missing"}
    assert len(listed) == len(image_rows)


def test_rows_from_memory_are_the_rows_from_disk(tiny_pool, tiny_model, tmp_path):
    processor = load(tiny_model).processor
    runs = []
    for cache in (0, 1, 50):
        cfg = config(pool=tiny_pool, model=tiny_model, cache_mb=cache)
        batches = Batches(cfg, Rows(cfg), processor, str(tmp_path / "refused"))
        runs.append([batches.make(np.array(p)) for p in ([1, 2, 3, 3], [3, 2, 40], [1, 2, 3, 3])])
    assert len(batches._kept) == 4
    for plain, kept in ((runs[0], runs[1]), (runs[0], runs[2])):
        for a, b in zip(plain, kept, strict=True):
            assert all(torch.equal(a[n], b[n]) for n in ("input_ids", "labels"))
            assert a["media"].keys() == b["media"].keys()
            assert all(torch.equal(a["media"][n], b["media"][n]) for n in a["media"])


def test_rows_are_the_picks_whatever_the_files_order(tiny_pool):
    rows = Rows(config(pool=tiny_pool))
    assert np.array_equal(rows.ids, np.sort(Pool(tiny_pool).ids()))
    text = [r.sample_id for r in Pool(tiny_pool).take(rows.ids) if not r.images]
    assert rows.ids[~rows.has_image].tolist() == text


def test_processes_hand_over_what_a_thread_does(tiny_pool, tiny_model, tmp_path):
    cfg = config(pool=tiny_pool, model=tiny_model)
    batches_by_way = [
        list(stream(MicroBatches(c, str(tmp_path), 0), range(6, 11)))
        for c in (cfg, cfg.model_copy(update={"loader_workers": 2, "loader_threads": 1}))
    ]
    for mine, other in zip(*batches_by_way, strict=True):
        assert mine.keys() == other.keys()
        assert torch.equal(mine["input_ids"], other["input_ids"])
        assert torch.equal(mine["labels"], other["labels"])
        assert mine["media"].keys() == other["media"].keys()
        assert all(torch.equal(mine["media"][n], other["media"][n]) for n in mine["media"])
    assert {b["media"]["pixel_values"].dtype for b in batches_by_way[0] if b["media"]} == {torch.uint8}
    # what is left out is listed by whoever met it, and counted once
    gone = cfg.model_copy(update={"image_root": str(tmp_path), "loader_workers": 2})
    list(stream(MicroBatches(gone, str(tmp_path), 0), range(8)))
    files = sorted(tmp_path.glob("refused-rank0*.jsonl"))
    assert [f.name for f in files] == ["refused-rank0-loader0.jsonl", "refused-rank0-loader1.jsonl"]
    assert 0 < len(refusals(str(tmp_path))) <= int(Rows(cfg).has_image.sum())


def test_prefetch_keeps_order_and_hands_errors_over():
    assert list(make_ahead(lambda x: x * 2, iter(range(20)))) == [2 * x for x in range(20)]
    with pytest.raises(ZeroDivisionError):
        list(make_ahead(lambda x: 1 // x, iter([1, 0])))


def test_lora_goes_into_the_adapter_config():
    cfg = config(parts=["projector", "lora"], lora={"r": 4, "alpha": 8})
    assert cfg.lora == LoraSpec(r=4, alpha=8)
    assert torch.is_grad_enabled()
