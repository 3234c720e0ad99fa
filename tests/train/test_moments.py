"""A training leaves Adam's moments beside each proxy checkpoint: those of an independent AdamW on the same rows."""

import os

import pytest
import torch
from vinnow.models.load import load
from vinnow.models.moments import load_moments
from vinnow.models.parts import canonical, set_trainable
from vinnow.store.errors import InputError
from vinnow.train.config import TrainConfig
from vinnow.train.data import Batches, Rows
from vinnow.train.loss import LossModule
from vinnow.train.optimizer import lr_factor, make_optimizer
from vinnow.train.order import Order
from vinnow.train.run import train

BASE = {"global_batch": 8, "micro_batch": 4, "lr": 1e-3, "max_steps": 4, "max_len": 256, "checkpoint_steps": 2}


def by_hand(config, steps):
    """The same rows by one process, torch alone; parameters by canonical name and their optimizer."""
    loaded = load(config.model)
    set_trainable(loaded.model, config.parts)
    module = LossModule(loaded.model).train()
    optimizer = make_optimizer(list(module.named_parameters()), config)
    rows = Rows(config)
    order = Order(config, rows.has_image, rows.n_chars)
    batches = Batches(config, rows, loaded.processor, os.devnull)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * lr_factor(step, config.max_steps, config)
        optimizer.zero_grad()
        for rank in range(config.workers):
            for turn in range(config.accumulation):
                batch = batches.make(order.micro_batch(step, turn, rank))
                (module(batch) / (config.workers * config.accumulation)).backward()
        optimizer.step()
    return {canonical(n): p for n, p in loaded.model.named_parameters() if p.requires_grad}, optimizer


@pytest.mark.parametrize(("stage", "workers"), [(2, 1), (3, 2)])
def test_kept_moments_are_those_of_an_independent_adamw(tiny_pool, twin_path, ray_cluster, tmp_path, stage, workers):
    values = BASE | {"model": twin_path, "pool": tiny_pool, "workers": workers, "zero_stage": stage}
    config = TrainConfig.parse(values | {"save_moments": True})
    report = train(config, str(tmp_path))
    assert [c.step for c in report.checkpoints] == [2, 4]
    for kept in report.checkpoints:
        parameters, optimizer = by_hand(config, kept.step)
        got = load_moments(kept.path, {n: p.shape for n, p in parameters.items()})
        assert (got.step, got.betas, got.eps) == (kept.step, (0.9, 0.999), 1e-8)
        for name, parameter in parameters.items():
            state = optimizer.state[parameter]
            for kind in ("exp_avg", "exp_avg_sq"):
                mine, other = getattr(got, kind)[name], state[kind]
                assert (mine - other).abs().max() <= 1e-4 * other.abs().max(), (kind, name)
        # the model is loaded as ever with the file beside it, and has the weights of the same run
        weights = dict(load(kept.path).model.named_parameters())
        assert all(torch.allclose(weights[n], p, atol=1e-5) for n, p in parameters.items())
    assert not os.path.exists(os.path.join(report.model, "moments.safetensors"))


def test_moments_without_checkpoints_are_refused(tiny_pool, twin_path):
    with pytest.raises(InputError, match="checkpoint_count or checkpoint_steps"):
        TrainConfig.parse({"model": twin_path, "pool": tiny_pool, "save_moments": True})
