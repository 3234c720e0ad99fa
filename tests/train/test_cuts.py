"""A step's loss and gradient do not depend on how the step is cut; the published cut weighs tokens as LLaVA's does."""

import itertools
import json

import numpy as np
import pytest
import torch
from transformers import get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup
from transformers import get_linear_schedule_with_warmup as get_linear
from vinnow.models.load import load
from vinnow.store.errors import InputError
from vinnow.train.account import Account
from vinnow.train.config import TrainConfig
from vinnow.train.data import Batches, Rows, count_cut, cut_refused, refusals
from vinnow.train.loss import LossModule, trained_tokens
from vinnow.train.optimizer import lr_factor
from vinnow.train.order import Order
from vinnow.train.run import train

SIZE = 16


def config(tiny_pool, tiny_model, **changes):
    base = {"model": tiny_model, "pool": tiny_pool, "global_batch": SIZE, "micro_batch": 4, "max_len": 256}
    return TrainConfig.parse(base | changes)


@pytest.fixture(scope="module")
def parts(tiny_pool, tiny_model):
    cfg = config(tiny_pool, tiny_model)
    loaded = load(tiny_model, dtype="float64")
    batches = Batches(cfg, Rows(cfg), loaded.processor, "/dev/null")
    return LossModule(loaded.model).train(), batches


def step(parts, chunks, workers):
    """Add up one step as workers and engines do: accumulated and averaged over workers. Returns loss and gradients."""
    module, source = parts
    module.zero_grad()
    batches = [source.make(np.array(chunk)) for chunk in chunks]
    for batch in batches:
        if batch["media"]:
            batch["media"] = {n: v.double() for n, v in batch["media"].items()}
    share = len(batches) / sum(map(trained_tokens, batches))
    total, accumulation = 0.0, len(batches) // workers
    for batch in batches:
        loss = module(batch, share)
        (loss / accumulation / workers).backward()
        total += float(loss) / accumulation / workers
    return total, {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def test_no_cut_changes_loss_or_gradient(parts):
    image = parts[1].rows.has_image
    # text-only rows make micro-batches of their own in some cuts, and share one with pictures in others
    rows = np.concatenate([np.flatnonzero(image)[:10], np.flatnonzero(~image)[:6]])
    module, batches = parts
    whole = batches.make(rows)
    whole["media"] = {n: v.double() for n, v in whole["media"].items()}
    module.zero_grad()
    loss = module(whole)  # the plain mean over all trained tokens of one batch
    loss.backward()
    expected = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
    shuffled = np.random.default_rng(0).permutation(rows)
    text_only = 0
    for micro, order, workers in itertools.product((1, 2, 4, 8), (rows, rows[::-1], shuffled), (1, 2)):
        chunks = order.reshape(-1, micro)
        text_only += sum(not image[c].any() for c in chunks)
        got, grads = step(parts, chunks, workers)
        # hidden states are normalised in float32
        assert got == pytest.approx(float(loss), rel=1e-6)
        largest = max(float(g.abs().max()) for g in expected.values())
        for name, grad in expected.items():
            assert float((grads[name] - grad).abs().max()) <= 1e-6 * largest, (micro, workers, name)
    assert text_only > 10


def test_a_mean_of_micro_batch_means_is_another_loss(parts):
    """What is held above can fail: the published mean over the same rows differs."""
    module, batches = parts
    whole = batches.make(np.arange(SIZE))
    by_length = np.argsort(-batches.rows.n_chars[:SIZE]).reshape(-1, 4)
    means = [float(module(_double(batches.make(chunk)))) for chunk in by_length]
    assert abs(np.mean(means) / float(module(_double(whole))) - 1) > 1e-4


def _double(batch):
    if batch["media"]:
        batch["media"] = {n: v.double() for n, v in batch["media"].items()}
    return batch


def token_weights(chunks, tokens):
    """How much a token of each row weighs in a mean of means, against its share of all tokens."""
    weight = np.empty(len(tokens))
    for chunk in chunks:
        weight[chunk] = tokens.sum() / len(chunks) / tokens[chunk].sum()
    return weight


def test_published_micro_batches_hold_equal_lengths_so_that_tokens_weigh_alike(tiny_pool, tiny_model):
    rng = np.random.default_rng(0)
    tokens = np.exp(rng.normal(4.5, 1.0, 1280)).astype(np.int64) + 1
    weights_by_mean = {}
    for mean in ("step", "micro_batch"):
        cfg = config(tiny_pool, tiny_model, global_batch=128, micro_batch=16, loss_mean=mean)
        order = Order(cfg, np.ones(len(tokens), bool), tokens)
        weights, seen = np.zeros(len(tokens)), []
        for number in range(order.per_epoch):
            rows = order.batch(number)
            seen += rows.tolist()
            weights[rows] = token_weights(np.arange(128).reshape(-1, 16), tokens[rows])
        assert sorted(seen) == list(range(len(tokens)))
        longest_first = np.argsort(-tokens)
        weights_by_mean[mean] = weights[longest_first[:128]].mean(), weights[longest_first[-128:]].mean()
    assert 0.9 < weights_by_mean["micro_batch"][0] < 1.1
    assert 0.9 < weights_by_mean["micro_batch"][1] < 1.1
    # rows of like length together, as they lie where the mean is the step's, would weigh so
    assert weights_by_mean["step"][0] < 0.6
    assert weights_by_mean["step"][1] > 3


def test_the_published_mean_takes_the_same_rows_a_step(tiny_pool, tiny_model):
    rows, steps_by_mean = Rows(config(tiny_pool, tiny_model)), []
    for mean in ("step", "micro_batch"):
        order = Order(config(tiny_pool, tiny_model, loss_mean=mean), rows.has_image, rows.n_chars)
        # the last one is filled up with the first rows of the epoch, whichever those are
        steps_by_mean.append([sorted(order.batch(s).tolist()) for s in range(order.per_epoch - 1)])
    assert steps_by_mean[0] == steps_by_mean[1]
    assert len(steps_by_mean[0]) == 3


@pytest.mark.parametrize("steps", [1, 2, 7, 33, 100])
@pytest.mark.parametrize("ratio", [0.0, 0.03, 0.1, 0.5])
def test_rates_are_those_of_hugging_face(tiny_pool, tiny_model, steps, ratio):
    warmup = -int(-ratio * steps // 1)
    makers = {
        "cosine": lambda o: get_cosine_schedule_with_warmup(o, warmup, steps),
        "linear": lambda o: get_linear(o, warmup, steps),
        "constant": lambda o: get_constant_schedule_with_warmup(o, warmup),
    }
    for name, make in makers.items():
        cfg = config(tiny_pool, tiny_model, schedule=name, warmup_ratio=ratio)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule, rates = make(optimizer), []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        assert [lr_factor(s, steps, cfg) for s in range(steps)] == pytest.approx(rates, abs=1e-12)


def batch_of(asked, used):
    labels = torch.full((max(used, 1), 3), -100)
    labels[:used, 1:] = 5
    return {"asked": asked, "used": used, "labels": labels, "refused": {}}


def test_a_step_without_a_usable_row_and_too_many_losses_end_a_training(tiny_pool, tiny_model, tmp_path):
    lines = [json.dumps({"sample_id": n, "reason": "image_missing", "step": 0}) + "\n" for n in range(4)]
    (tmp_path / "refused-rank0.jsonl").write_text("".join(lines))
    cfg = config(tiny_pool, tiny_model)
    account = Account(cfg, 1000, 1000, "cpu", str(tmp_path))
    assert account.add([batch_of(4, 4), batch_of(4, 3), batch_of(4, 4), batch_of(4, 4)]) == 30
    said = r"not one of the first 16 rows could be used \(image_missing 4; listed in .*/refused-rank\*.jsonl\)"
    with pytest.raises(InputError, match=said):
        Account(cfg, 1000, 1000, "cpu", str(tmp_path)).add([batch_of(4, 0)] * 4)
    account = Account(cfg, 64, 1000, "cpu", str(tmp_path))  # three of 64 are under 5 %, four are over it
    for epoch in range(3):
        for lost in (1, 0, 1, 1):
            account.add([batch_of(16, 16 - lost)])
        assert account.lost == 3, epoch
    for lost in (1, 2):
        account.add([batch_of(16, 16 - lost)])
    with pytest.raises(InputError, match=r"4 of the first 48 rows .* of 64 in all: more than max_refused \(5.0%\)"):
        account.add([batch_of(16, 15)])
    all_the_same = config(tiny_pool, tiny_model, max_refused=1)
    Account(all_the_same, 64, 4, "cpu", str(tmp_path)).add([batch_of(16, 1)])
    account = Account(all_the_same, 64, 4, "cpu", str(tmp_path))
    for _ in range(3):
        account.add([batch_of(16, 0)])
    with pytest.raises(InputError, match="not one of the first 64 rows"):
        account.add([batch_of(16, 0)])


def test_rows_whose_answers_are_cut_off_are_refused_and_listed(tiny_pool, tiny_model, tmp_path):
    processor = load(tiny_model).processor
    cfg = config(tiny_pool, tiny_model, max_len=30)
    batches = Batches(cfg, Rows(cfg), processor, str(tmp_path / "refused"))
    batch = batches.make(np.arange(20))
    assert batch["used"] < batch["asked"] == 20
    text = (tmp_path / "refused").read_text()
    assert "no_trained_token" in text
    assert "cut off at max_len 30" in text


def test_rows_that_lose_a_part_of_their_answer_are_used_and_counted(tiny_pool, tiny_model, tmp_path):
    processor = load(tiny_model).processor
    whole = Batches(config(tiny_pool, tiny_model), Rows(config(tiny_pool, tiny_model)), processor, str(tmp_path / "x"))
    row = whole.make(np.array([0]))
    first = np.flatnonzero(row["labels"][0] != -100)[0]
    cfg = config(tiny_pool, tiny_model, max_len=int(first) + 1)
    batches = Batches(cfg, Rows(cfg), processor, str(tmp_path / "refused-rank0.jsonl"))
    batch = batches.make(np.array([0, 0]))
    assert (batch["asked"], batch["used"]) == (2, 2)
    assert count_cut(str(tmp_path)) == 1
    trained = int((row["labels"] != -100).sum())
    assert json.loads((tmp_path / "cut-rank0.jsonl").read_text())["tokens"] == trained - 1
    assert not refusals(str(tmp_path))


def test_refusals_of_steps_that_come_again_are_forgotten(tmp_path):
    lines = [{"sample_id": i, "reason": "image_missing", "detail": "", "step": i} for i in range(1, 7)]
    for name in ("refused-rank0.jsonl", "refused-rank0-loader1.jsonl", "refused-rank1.jsonl", "cut-rank0.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in lines) + '{"sample_id": 9')
    cut_refused(str(tmp_path), 0, 3)
    counts = {p.name: p.read_text().count("\n") for p in tmp_path.iterdir()}
    assert counts == {
        "refused-rank0.jsonl": 3,
        "refused-rank0-loader1.jsonl": 3,
        "refused-rank1.jsonl": 6,
        "cut-rank0.jsonl": 3,
    }
    assert refusals(str(tmp_path)) == dict.fromkeys(range(1, 7), "image_missing")


def test_one_step_at_a_rate_of_nothing_is_refused(tiny_pool, tiny_model, tmp_path):
    with pytest.raises(InputError, match="would train nothing"):
        train(config(tiny_pool, tiny_model, max_steps=1), str(tmp_path))
