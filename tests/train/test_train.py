"""Real trainings: Ray Train workers, DeepSpeed engines, kills, and models that Hugging Face loads alone."""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import python_line
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration
from vinnow.models.components import canonical, set_trainable
from vinnow.models.load import load
from vinnow.models.moments import load_moments
from vinnow.store.errors import InputError
from vinnow.store.files import read_json
from vinnow.train.config import TrainConfig
from vinnow.train.data import Batches, Rows
from vinnow.train.loss import LossModule
from vinnow.train.optimizer import lr_factor
from vinnow.train.order import Order
from vinnow.train.run import TrainReport, train

ANSWER = """
import sys, torch
from transformers import LlavaForConditionalGeneration
model = LlavaForConditionalGeneration.from_pretrained(sys.argv[1]).eval()
ids = torch.tensor([[1, 300, 301, 302, 303]])
print(model.generate(ids, max_new_tokens=8, do_sample=False)[0].tolist())
"""


def config(tiny_pool, tiny_model, **changes):
    base = {"model": tiny_model, "pool": tiny_pool, "global_batch": 8, "micro_batch": 4, "workers": 2}
    return TrainConfig.parse(base | {"lr": 1e-3, "max_steps": 16, "max_len": 256} | changes)


def curve(report):
    return [loss for _, loss, _ in report.curve]


@pytest.fixture(scope="module")
def long(tiny_pool, target_pool, tiny_model):
    """Forty steps with all that is kept on the way; the target pool's rows are held out."""
    held = {"pool": target_pool, "steps": 12}
    kept = {"checkpoint_count": 3, "resume_steps": 5, "validation": held, "trackers": ["tensorboard"]}
    return config(tiny_pool, tiny_model, max_steps=40, **kept)


@pytest.fixture(scope="module")
def undisturbed(long, ray_cluster, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("two"))
    return train(long, out), out


def by_hand(cfg, steps, stop):
    """Train by torch alone: no Ray, no DeepSpeed, one process. Returns losses, parameters by canonical name, and AdamW."""
    loaded = load(cfg.model)
    set_trainable(loaded.model, cfg.parts)
    module, rows = LossModule(loaded.model).train(), Rows(cfg)
    named = {canonical(n): p for n, p in loaded.model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(list(named.values()), weight_decay=0.0)
    order, losses = Order(cfg, rows.has_image, rows.n_chars), []
    batches = Batches(cfg, rows, loaded.processor, os.devnull)
    for step in range(stop):
        optimizer.param_groups[0]["lr"] = cfg.lr * lr_factor(step, steps, cfg)
        optimizer.zero_grad()
        # the mean over all trained tokens, by taking all rows of the step as one batch
        loss = module(batches.make(order.batch(step)))
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    return losses, named, optimizer


def plain_losses(cfg, steps, stop):
    return by_hand(cfg, steps, stop)[0]


@pytest.fixture(scope="module")
def zero3(tiny_pool, target_pool, tiny_model, ray_cluster, tmp_path_factory):
    """Nine steps of two workers that share weights, gradients and AdamW's state, all of it in the host's memory."""
    kept = {"checkpoint_weights": "trained", "checkpoint_steps": 3, "checkpoint_limit": 2, "save_moments": True}
    kept |= {"validation": {"pool": target_pool, "steps": 5, "max_rows": 7}, "offload": "parameters"}
    cfg, out = config(tiny_pool, tiny_model, zero_stage=3, max_steps=9, **kept), tmp_path_factory.mktemp("zero3")
    return cfg, train(cfg, str(out)), out


def test_two_workers_train_with_deepspeed(undisturbed):
    report, out = undisturbed
    assert report.engine["engine"] == "DeepSpeedEngine"
    assert (report.engine["zero_stage"], report.engine["world"]) == (2, 2)
    assert report.steps == 40
    assert report.loss < 0.8 * report.curve[0][1]
    assert [c.step for c in report.checkpoints] == [13, 27, 40]
    assert all(os.path.isfile(f"{c.path}/model.safetensors") for c in report.checkpoints)
    assert report.checkpoints[0].lr > report.checkpoints[2].lr > 0
    assert TrainReport.read(out).checkpoints == report.checkpoints


def test_the_curve_is_that_of_torch_alone(undisturbed, long):
    """Text-only micro-batches are among them: this is what a graph of another shape broke under ZeRO-2."""
    plain = plain_losses(long, 40, 12)
    assert plain[-1] < 0.95 * plain[0]
    assert curve(undisturbed[0])[:12] == pytest.approx(plain, rel=1e-4)


def test_the_best_model_on_held_out_rows_is_kept(undisturbed, long, target_pool):
    report, out = undisturbed
    assert [s for s, _ in report.validation] == [12, 24, 36, 40]
    held = report.held_out
    assert held["rows"] > 0
    assert held["refused"] == {}
    said = report.lines(2048)
    assert said[1].startswith(f"held out: {held['rows']} rows used, none refused; loss ")
    assert said[2:] == (
        [f"{held['trained_on']} rows of the validation pool are trained on, so left out of it"]
        if held["trained_on"]
        else []
    )
    assert report.best_step == min(report.validation, key=lambda v: v[1])[0]
    assert dict(report.validation)[report.best_step] < report.validation[0][1]
    # the loss of the model that was kept, over all trained tokens of the held-out rows at once
    cfg = long.model_copy(update={"pool": target_pool})
    rows, loaded = Rows(cfg), load(report.best)
    batch = Batches(cfg, rows, loaded.processor, "/dev/null").make(np.arange(len(rows.ids)))
    with torch.no_grad():
        loss = LossModule(loaded.model)(batch)
    assert float(loss) == pytest.approx(dict(report.validation)[report.best_step], rel=1e-5)
    assert list(Path(out, "tensorboard").glob("events*"))


def test_a_killed_worker_resumes_and_ends_with_the_same_loss(undisturbed, long, tmp_path):
    out = str(tmp_path)
    killed = threading.Event()

    def kill_when_under_way():
        while not killed.is_set():
            log = tmp_path / "log.jsonl"
            if log.is_file() and log.read_text().count("\n") >= 12:
                os.kill(json.loads((tmp_path / "engine.json").read_text())["pid"], signal.SIGKILL)
                killed.set()
            time.sleep(0.01)

    thread = threading.Thread(target=kill_when_under_way, daemon=True)
    thread.start()
    report = train(long, out)
    assert killed.is_set()
    assert [s for s, _, _ in report.curve] == list(range(1, 41))
    # the same float operations in the same order: equal to the last digit, in the middle of an epoch, not only close
    assert report.curve == undisturbed[0].curve
    assert report.validation == undisturbed[0].validation
    mine, other = (load(r.model).model.state_dict() for r in (report, undisturbed[0]))
    assert all(torch.allclose(mine[k], other[k], atol=1e-6) for k in mine)


def test_a_finished_training_does_nothing_and_another_config_is_refused(undisturbed, long):
    report, out = undisturbed
    begin = time.perf_counter()
    assert curve(train(long, out)) == curve(report)
    assert time.perf_counter() - begin < 2
    with pytest.raises(InputError, match=r"lr: was 0\.001, is 0\.002"):
        train(long.model_copy(update={"lr": 2e-3}), out)


def test_the_model_loads_in_a_fresh_process_and_answers_as_before(undisturbed):
    model = LlavaForConditionalGeneration.from_pretrained(undisturbed[0].model).eval()
    ids = torch.tensor([[1, 300, 301, 302, 303]])
    here = model.generate(ids, max_new_tokens=8, do_sample=False)[0].tolist()
    there = subprocess.run(
        [*python_line(), "-c", ANSWER, undisturbed[0].model],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert json.loads(there.stdout.splitlines()[-1]) == here


def test_zero_3_follows_torch_alone_and_saves_a_whole_model(zero3, tiny_model):
    cfg, report, out = zero3
    assert report.engine["zero_stage"] == 3
    assert curve(report) == pytest.approx(plain_losses(cfg, 9, 9), rel=1e-4)
    assert [c.step for c in report.checkpoints] == [6, 9]
    assert sorted(p.name for p in out.glob("checkpoint-*")) == ["checkpoint-6", "checkpoint-9"]
    # seven held-out rows in four micro-batches on two workers: one of them finds none in its second
    assert [s for s, _ in report.validation] == [5, 9]
    assert report.validation[1][1] == min(v for _, v in report.validation)
    assert read_json(out / "best.json") == {"step": 9, "loss": report.validation[1][1]}
    assert load(report.best).digest == load(report.model).digest
    trained, start = (LlavaForConditionalGeneration.from_pretrained(p).state_dict() for p in (report.model, tiny_model))
    assert {k: v.shape for k, v in trained.items()} == {k: v.shape for k, v in start.items()}
    changed = [k for k in trained if not torch.equal(trained[k], start[k])]
    assert any("multi_modal_projector" in k for k in changed)
    assert not any("vision_tower" in k for k in changed)
    half = load(report.checkpoints[1].path).model.state_dict()
    assert all(torch.equal(half[k], trained[k].bfloat16().float()) for k in changed)


def test_kept_moments_are_those_of_an_independent_adamw(zero3):
    """The other stages and worlds: tests/models/test_moments.py."""
    cfg, report, _ = zero3
    for kept in report.checkpoints:
        _, parameters, optimizer = by_hand(cfg, 9, kept.step)
        got = load_moments(kept.path, {n: p.shape for n, p in parameters.items()})
        assert (got.step, got.betas, got.eps) == (kept.step, (0.9, 0.999), 1e-8)
        for name, parameter in parameters.items():
            state = optimizer.state[parameter]
            for kind in ("exp_avg", "exp_avg_sq"):
                mine, other = getattr(got, kind)[name], state[kind]
                assert (mine - other).abs().max() <= 1e-4 * other.abs().max(), (kind, name)
        # the model is loaded as ever with the file beside it, and has the weights of the same run, in bfloat16
        weights = dict(load(kept.path).model.named_parameters())
        assert all(torch.allclose(weights[n], p, rtol=1e-2, atol=1e-5) for n, p in parameters.items())
    assert not os.path.exists(os.path.join(report.model, "moments.safetensors"))


def test_stage_one_moves_the_projector_alone(tiny_pool, tiny_model, tmp_path, ray_cluster):
    kept = {"checkpoint_weights": "trained", "checkpoint_count": 2, "checkpoint_start": True}
    # most rows have several turns, which this template refuses
    kept |= {"parts": ["projector"], "template": "plain", "offload": "optimizer", "max_refused": 1}
    cfg = config(tiny_pool, tiny_model, workers=1, max_steps=6, **kept)
    assert cfg.accumulation == 2
    report = train(cfg, str(tmp_path))
    assert curve(report) == pytest.approx(plain_losses(cfg, 6, 6), rel=1e-4)
    trained, start = (load(p).model.state_dict() for p in (report.model, tiny_model))
    changed = {k for k in trained if not torch.equal(trained[k], start[k])}
    assert changed == {k for k in trained if "multi_modal_projector" in k}
    # checkpoints of trained weights alone, the model before its first step among them
    assert [c.step for c in report.checkpoints] == [0, 3, 6]
    assert report.checkpoints[0].lr == 0 < report.checkpoints[1].lr
    for path, whole in ((report.checkpoints[0].path, start), (report.checkpoints[2].path, trained)):
        assert len(load_file(f"{path}/trained.safetensors")) == len(changed)
        assert not os.path.exists(f"{path}/model.safetensors")
        got = load(path).model.state_dict()
        assert {k for k in got if not torch.equal(got[k], whole[k])} <= changed
        assert all(torch.equal(got[k], whole[k].bfloat16().float()) for k in changed)


def test_lora_saves_adapter_and_projector_and_features_can_load_them(tiny_pool, tiny_model, tmp_path, ray_cluster):
    lora = {"r": 4, "alpha": 8, "dropout": 0.1}
    kept = {"checkpoint_weights": "trained", "checkpoint_count": 1}
    cfg = config(tiny_pool, tiny_model, parts=["projector", "lora"], lora=lora, workers=1, max_steps=6, **kept)
    report = train(cfg, str(tmp_path))
    assert os.path.isfile(f"{report.model}/adapter_model.safetensors")
    # PEFT would leave the projector out without a word: the folder and the last line say so, and what makes it whole
    card = Path(report.model, "README.md").read_text()
    told = [
        "LORA adapter",
        "besides (projector)",
        "PEFT alone loads only",
        tiny_model,
        "\nvinnow merge MODEL --out merged\n",
    ]
    assert [words for words in told if words not in card] == []
    last = report.lines(cfg.max_len)[-1]
    assert "(non_lora.safetensors)" in last
    assert last.endswith(f"vinnow merge {report.model} --out merged")
    loaded = load(report.model).model
    start = load(tiny_model).model.state_dict()
    now = {k.replace("base_model.model.", "").replace(".base_layer", ""): v for k, v in loaded.state_dict().items()}
    moved = {k for k in start if not torch.equal(now[k], start[k])}
    assert moved == {k for k in start if "multi_modal_projector" in k}
    assert any(v.abs().max() > 0 for k, v in now.items() if ".lora_B." in k)
    half = load(report.checkpoints[0].path).model.state_dict()
    trained = {k for k in half if ".lora_" in k or "multi_modal_projector" in k}
    assert all(torch.equal(v, loaded.state_dict()[k].bfloat16().float()) for k, v in half.items() if k in trained)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in half.items() if k not in trained)


def test_what_is_missing_is_said_before_ray_starts(tiny_pool, tiny_model, tmp_path):
    with pytest.raises(InputError, match="no checkpoint at"):
        train(config(tiny_pool, "/nowhere"), str(tmp_path / "a"))
    with pytest.raises(InputError, match="no finished pool"):
        train(config(str(tmp_path), tiny_model), str(tmp_path / "b"))
    with pytest.raises(InputError, match="no such table"):
        train(config(tiny_pool, tiny_model, picks=str(tmp_path / "picks.parquet")), str(tmp_path / "c"))
