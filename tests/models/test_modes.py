"""Maths modes against a naive loop over samples in float64, with moments of a real training."""

import math

import pytest
import torch
import trained
from vinnow.models.moments import Moments, load_moments
from vinnow.models.taps import modes
from vinnow.models.taps.modes import make_transform
from vinnow.store.errors import InputError


@pytest.fixture(scope="module")
def moments(tiny_model, tmp_path_factory) -> Moments:
    model, batch, parameters = trained.prepare(tiny_model)
    optimizer = trained.adamw(model, batch, trained.layout(parameters, "llava"))
    folder = tmp_path_factory.mktemp("adam")
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    return load_moments(folder, {n: p.shape for n, p in parameters.items()})


def gradients(moments, name, rows=4):
    """Per-sample gradients of the size that this parameter's momentum has; row 2 has none."""
    m = moments.exp_avg[name].flatten().double()
    torch.manual_seed(len(name))
    grads = torch.randn(rows, m.numel(), dtype=torch.float64) * m.abs().mean() * 10
    grads[2] = 0
    return grads


def naive(mode, grad, m, v, moments):
    """Plain formulas for one sample's gradient; less_adam is LESS's collect_grad_reps.py:111-127."""
    if mode == "sgd":
        return grad
    if mode == "sign":
        return grad.sign()
    if mode == "less_adam":
        updated_avg = 0.9 * m + (1 - 0.9) * grad
        updated_avg_sq = 0.999 * v + (1 - 0.999) * grad**2
        return updated_avg / torch.sqrt(updated_avg_sq + 1e-08)
    p = torch.nn.Parameter(torch.zeros_like(grad))
    optimizer = torch.optim.Adam([p], lr=1.0, betas=moments.betas, eps=moments.eps)
    optimizer.state[p] = {"step": torch.tensor(float(moments.step)), "exp_avg": m.clone(), "exp_avg_sq": v.clone()}
    p.grad = grad.clone()
    optimizer.step()
    return -p.detach()


@pytest.mark.parametrize("mode", ["sgd", "sign", "less_adam", "adam"])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_each_mode_equals_a_naive_loop(moments, mode, dtype, close):
    transform = make_transform(mode, moments)
    for name in moments.exp_avg:
        m, v = (getattr(moments, k)[name].flatten().double() for k in trained.KINDS)
        grads = gradients(moments, name).to(dtype)
        before = grads.clone()
        got = transform(name, grads)
        expected = torch.stack([naive(mode, g, m, v, moments) for g in grads.double()])
        assert got.dtype == dtype
        assert torch.equal(grads, before)
        assert (got.double() - expected).abs().max() <= close * expected.abs().max(), name


def test_blocks_of_columns_change_nothing(moments, monkeypatch):
    name = next(iter(moments.exp_avg))
    grads = gradients(moments, name)
    for mode in ("less_adam", "adam"):
        whole, cut = make_transform(mode, moments), make_transform(mode, moments)
        expected = whole(name, grads)
        monkeypatch.setattr(modes, "BLOCK", 4 * 1000 + 1)
        assert torch.equal(cut(name, grads), expected)
        assert cut.facts() == whole.facts()
        monkeypatch.undo()


def test_moments_stay_as_they_are_and_no_sample_sees_another(moments):
    kept = {k: {n: t.clone() for n, t in getattr(moments, k).items()} for k in trained.KINDS}
    for mode in ("less_adam", "adam"):
        transform = make_transform(mode, moments)
        for name in kept["exp_avg"]:
            grads = gradients(moments, name)
            together = transform(name, grads)
            # float32 is the moments' own dtype, where an in-place slip would reach them
            transform(name, grads.float())
            assert torch.equal(transform(name, grads[1:2]), together[1:2])
    for kind, tensors in kept.items():
        assert all(torch.equal(getattr(moments, kind)[n], t) for n, t in tensors.items())


def test_the_share_below_eps_is_counted(moments):
    transform = make_transform("less_adam", moments)
    assert transform.facts() == {"entries": 0, "below_eps": 0.0}
    below = seen = 0
    for name, v in moments.exp_avg_sq.items():
        grads = gradients(moments, name)
        transform(name, grads)
        below += int((0.999 * v.flatten().double() + (1 - 0.999) * grads**2 < 1e-8).sum())
        seen += grads.numel()
    facts = transform.facts()
    assert facts["entries"] == seen
    assert facts["below_eps"] == pytest.approx(below / seen, abs=1e-6)
    assert 0 < facts["below_eps"] < 1
    assert make_transform("sgd", None).facts() == make_transform("sign", None).facts() == {}


def test_a_row_without_a_gradient_shows_the_momentum(moments):
    name = next(iter(moments.exp_avg))
    grads = torch.zeros(1, moments.exp_avg[name].numel())
    assert make_transform("adam", moments)(name, grads).any()
    assert not make_transform("sign", None)(name, grads).any()


def test_a_parameter_that_stepped_less_often_is_corrected_by_its_own_count(moments):
    name = next(iter(moments.exp_avg))
    late = Moments(**{**vars(moments), "own_steps": {name: 0}})
    grads = gradients(moments, name)
    m, v = (getattr(moments, k)[name].flatten().double() for k in trained.KINDS)
    (b1, b2), eps = moments.betas, moments.eps
    expected = (b1 * m + (1 - b1) * grads) / (1 - b1)
    expected /= ((b2 * v + (1 - b2) * grads**2) / (1 - b2)).sqrt() + eps
    assert torch.allclose(make_transform("adam", late)(name, grads), expected, rtol=1e-10)


def test_what_is_missing_is_said(moments):
    with pytest.raises(InputError, match="save_moments: true"):
        make_transform("adam", None)
    name = next(iter(moments.exp_avg))
    with pytest.raises(InputError, match=r"lack 'model\.other\.weight'"):
        make_transform("adam", moments)("model.other.weight", torch.zeros(1, 4))
    size = math.prod(moments.exp_avg[name].shape)
    with pytest.raises(InputError, match=f"{size} elements, its gradients 4"):
        make_transform("less_adam", moments)(name, torch.zeros(1, 4))
