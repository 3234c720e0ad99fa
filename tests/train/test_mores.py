"""A training of MoReS by Ray Train and DeepSpeed, and what its config refuses."""

import pytest
import torch
from batches import inputs_of, make_batch
from vinnow.models.components import component_of
from vinnow.models.load import load
from vinnow.models.mores import add_mores
from vinnow.store.errors import InputError
from vinnow.train.config import TrainConfig
from vinnow.train.optimizer import make_optimizer
from vinnow.train.run import train


def config(pool, model, **changes):
    base = {"model": model, "pool": pool, "global_batch": 8, "micro_batch": 8, "max_len": 256, "max_steps": 6}
    mores = {"mores": {"rank": 2, "positions": "f4+l5"}, "parts": ["projector", "mores"], "mores_lr": 1e-2}
    return TrainConfig.parse(base | mores | {"lr": 1e-3} | changes)


def test_six_steps_move_it_and_the_model_answers(tiny_pool, tiny_model, tmp_path, ray_cluster):
    kept = {"checkpoint_weights": "trained", "checkpoint_count": 1, "checkpoint_start": True}
    cfg = config(tiny_pool, tiny_model, gradient_checkpointing=True, precision="bfloat16", **kept)
    report = train(cfg, str(tmp_path / "run"))
    assert report.engine["trainable"] == 2 * (2 * 64 * 2 + 2) + sum(
        p.numel() for p in load(tiny_model).model.model.multi_modal_projector.parameters()
    )
    first, last = load(report.checkpoints[0].path).model, load(report.model).model
    plain = load(tiny_model).model.state_dict()
    moved = {n for n, p in last.state_dict().items() if not torch.equal(p, first.state_dict()[n])}
    # what lies behind the last layer reaches no label (models/mores.py)
    assert moved == {n for n in first.state_dict() if "projector" in n or "mores.layers.0" in n}
    for name, weight in plain.items():
        same = weight.bfloat16().float() if component_of(name) == "projector" else weight
        assert torch.equal(first.get_parameter(name), same), name
    assert load(report.checkpoints[1].path).digest != load(report.checkpoints[0].path).digest
    batch = make_batch(last, [1, 4])
    inputs = inputs_of(batch, "input_ids", "attention_mask")
    assert last.generate(**inputs, max_new_tokens=2, pad_token_id=3).shape == (2, inputs["input_ids"].shape[1] + 2)
    with pytest.raises(InputError, match=f"depends on positions.*{tiny_model}"):
        train(config(tiny_pool, report.model), str(tmp_path / "again"))


def test_its_group_has_its_own_rate_and_no_decay(tiny_pool, tiny_model):
    model = load(tiny_model).model
    cfg = config(tiny_pool, tiny_model, projector_lr=1e-4, weight_decay=0.1)
    add_mores(model, cfg.mores)
    named = list(model.named_parameters())
    model.model.multi_modal_projector.requires_grad_(True)
    groups = make_optimizer(named, cfg).param_groups
    assert [(g["lr"], g["weight_decay"]) for g in groups] == [(1e-4, 0.1), (1e-4, 0.0), (1e-2, 0.0)]
    steered = {id(p) for n, p in named if component_of(n) == "mores"}
    assert {id(p) for p in groups[2]["params"]} == steered
    cfg = config(tiny_pool, tiny_model, mores_lr=None)
    assert make_optimizer(named, cfg).param_groups[-1]["lr"] == cfg.lr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mores": None}, "go together"),
        ({"parts": ["projector"]}, "go together"),
        ({"parts": ["projector"], "mores": None}, "mores_lr"),
        ({"parts": ["mores", "language_model"]}, "frozen"),
        ({"mores": {"ranks": 3}}, "did you mean 'rank'"),
    ],
)
def test_what_does_not_fit_is_said(changes, words):
    with pytest.raises(InputError, match=words):
        config("p", "m", **changes)
