"""Real trainings: Ray Train workers, DeepSpeed engines, kills, and models that Hugging Face loads alone."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration
from vinnow.models.load import load
from vinnow.store.errors import InputError
from vinnow.train.config import TrainConfig
from vinnow.train.run import TrainReport, train

ANSWER = """
import sys, torch
from transformers import LlavaForConditionalGeneration
model = LlavaForConditionalGeneration.from_pretrained(sys.argv[1]).eval()
ids = torch.tensor([[1, 300, 301, 302, 303]])
print(model.generate(ids, max_new_tokens=8, do_sample=False)[0].tolist())
"""


def config(tiny_pool, twin_path, **changes):
    base = {"model": twin_path, "pool": tiny_pool, "global_batch": 8, "micro_batch": 4, "workers": 2}
    return TrainConfig.parse(base | {"lr": 1e-3, "max_steps": 16, "max_len": 256} | changes)


def curve(report):
    return [loss for _, loss, _ in report.curve]


@pytest.fixture(scope="module")
def undisturbed(tiny_pool, twin_path, ray_cluster, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("two"))
    return train(config(tiny_pool, twin_path, max_steps=40, resume_steps=5, checkpoint_count=3), out), out


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


def test_one_worker_that_accumulates_follows_the_same_curve(undisturbed, tiny_pool, twin_path, tmp_path):
    """Text-only micro-batches are among them: this is what a graph of another shape broke under ZeRO-2."""
    report = train(config(tiny_pool, twin_path, workers=1, max_steps=40), str(tmp_path))
    assert curve(report) == pytest.approx(curve(undisturbed[0]), rel=1e-4)


def test_a_killed_worker_resumes_and_ends_with_the_same_loss(undisturbed, tiny_pool, twin_path, tmp_path):
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
    before = config(tiny_pool, twin_path, max_steps=40, resume_steps=5, checkpoint_count=3)
    report = train(before, out)
    assert killed.is_set()
    assert [s for s, _, _ in report.curve] == list(range(1, 41))
    # the same float operations in the same order: equal, not only close
    assert curve(report) == pytest.approx(curve(undisturbed[0]), rel=1e-6)
    mine, other = (load(r.model).model.state_dict() for r in (report, undisturbed[0]))
    assert all(torch.allclose(mine[k], other[k], atol=1e-6) for k in mine)


def test_a_finished_training_does_nothing_and_another_config_is_refused(undisturbed, tiny_pool, twin_path):
    report, out = undisturbed
    same = config(tiny_pool, twin_path, max_steps=40, resume_steps=5, checkpoint_count=3)
    begin = time.perf_counter()
    assert curve(train(same, out)) == curve(report)
    assert time.perf_counter() - begin < 2
    with pytest.raises(InputError, match=r"lr: was 0\.001, is 0\.002"):
        train(same.model_copy(update={"lr": 2e-3}), out)


def test_the_model_loads_in_a_fresh_process_and_answers_as_before(undisturbed):
    model = LlavaForConditionalGeneration.from_pretrained(undisturbed[0].model).eval()
    ids = torch.tensor([[1, 300, 301, 302, 303]])
    here = model.generate(ids, max_new_tokens=8, do_sample=False)[0].tolist()
    there = subprocess.run(
        [sys.executable, "-c", ANSWER, undisturbed[0].model],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert json.loads(there.stdout.splitlines()[-1]) == here


def test_zero_3_trains_and_saves_a_whole_model(undisturbed, tiny_pool, twin_path, tmp_path):
    kept = {"checkpoint_weights": "trained", "checkpoint_count": 1}
    report = train(config(tiny_pool, twin_path, zero_stage=3, max_steps=9, **kept), str(tmp_path))
    assert report.engine["zero_stage"] == 3
    # the schedule is another one, but the first steps' losses show the same model and data
    assert curve(report)[:1] == pytest.approx(curve(undisturbed[0])[:1], rel=1e-4)
    assert curve(report)[-1] < curve(report)[0]
    trained, start = (LlavaForConditionalGeneration.from_pretrained(p).state_dict() for p in (report.model, twin_path))
    assert {k: v.shape for k, v in trained.items()} == {k: v.shape for k, v in start.items()}
    changed = [k for k in trained if not torch.equal(trained[k], start[k])]
    assert any("multi_modal_projector" in k for k in changed)
    assert not any("vision_tower" in k for k in changed)
    half = load(report.checkpoints[0].path).model.state_dict()
    assert all(torch.equal(half[k], trained[k].bfloat16().float()) for k in changed)


def test_stage_one_moves_the_projector_alone(tiny_pool, twin_path, tmp_path, ray_cluster):
    kept = {"checkpoint_weights": "trained", "checkpoint_count": 2, "checkpoint_start": True}
    cfg = config(tiny_pool, twin_path, parts=["projector"], template="plain", workers=1, max_steps=6, **kept)
    report = train(cfg, str(tmp_path))
    trained, start = (load(p).model.state_dict() for p in (report.model, twin_path))
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


def test_lora_saves_adapter_and_projector_and_features_can_load_them(tiny_pool, twin_path, tmp_path, ray_cluster):
    lora = {"r": 4, "alpha": 8, "dropout": 0.1}
    kept = {"checkpoint_weights": "trained", "checkpoint_count": 1}
    cfg = config(tiny_pool, twin_path, parts=["projector", "lora"], lora=lora, workers=1, max_steps=6, **kept)
    report = train(cfg, str(tmp_path))
    assert os.path.isfile(f"{report.model}/adapter_model.safetensors")
    loaded = load(report.model).model
    start = load(twin_path).model.state_dict()
    now = {k.replace("base_model.model.", "").replace(".base_layer", ""): v for k, v in loaded.state_dict().items()}
    moved = {k for k in start if not torch.equal(now[k], start[k])}
    assert moved == {k for k in start if "multi_modal_projector" in k}
    assert any(v.abs().max() > 0 for k, v in now.items() if ".lora_B." in k)
    half = load(report.checkpoints[0].path).model.state_dict()
    trained = {k for k in half if ".lora_" in k or "multi_modal_projector" in k}
    assert all(torch.equal(v, loaded.state_dict()[k].bfloat16().float()) for k, v in half.items() if k in trained)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in half.items() if k not in trained)


def test_what_is_missing_is_said_before_ray_starts(tiny_pool, twin_path, tmp_path):
    with pytest.raises(InputError, match="no checkpoint at"):
        train(config(tiny_pool, "/nowhere"), str(tmp_path / "a"))
    with pytest.raises(InputError, match="no finished pool"):
        train(config(str(tmp_path), twin_path), str(tmp_path / "b"))
    with pytest.raises(InputError, match="no such table"):
        train(config(tiny_pool, twin_path, picks=str(tmp_path / "picks.parquet")), str(tmp_path / "c"))
