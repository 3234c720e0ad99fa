"""Projections: one matrix everywhere, unbiased inner products, and each sink against the matrix written out."""

import numpy as np
import pytest
import torch
from batches import make_batch
from vinnow.models.load import load
from vinnow.models.projections.build import make_sink
from vinnow.models.projections.config import ProjectionConfig
from vinnow.models.projections.dense import Rademacher
from vinnow.models.projections.kron import sides
from vinnow.models.projections.signs import MOST, check_size, keys, rademacher_signs
from vinnow.models.projections.sparse import Sjlt, sjlt_places
from vinnow.models.projections.targets import Means, Norms, Targets
from vinnow.models.taps.gradients import GradientTap
from vinnow.store.errors import InputError

KINDS = {
    "rademacher": ProjectionConfig(dim=4096, seed=3),
    "sjlt": ProjectionConfig(kind="sjlt", dim=4096, seed=3, nonzeros=1),
    "sjlt4": ProjectionConfig(kind="sjlt", dim=4096, seed=3, nonzeros=4),
}
# golden: the matrix is part of every stored feature's meaning
GOLDEN_SIGNS = [
    [1, 1, -1, 1, 1, -1, -1, 1, -1, -1, -1, 1, 1, -1, -1, 1],
    [-1, -1, -1, 1, -1, 1, -1, 1, -1, 1, 1, -1, -1, 1, 1, 1],
]
GOLDEN_PLACES = [[14, 15, 12, 13], [32, 33, 34, 35]]


def rows(count, size, seed=0):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def project(config, parts):
    sink = make_sink(config, {n: g.shape[1] for n, g in parts.items()})
    first = next(iter(parts.values()))
    sink.start(first.shape[0], first.device, first.dtype)
    for name, g in parts.items():
        sink.add(name, g)
    return sink.finish()


def test_signs_do_not_depend_on_blocks_and_look_random():
    whole = rademacher_signs(1, "a.weight", (0, 5000), 128)
    parts = torch.cat([rademacher_signs(1, "a.weight", (b, b + 1250), 128) for b in range(0, 5000, 1250)])
    assert torch.equal(whole, parts)
    assert not torch.equal(whole, rademacher_signs(2, "a.weight", (0, 5000), 128))
    assert not torch.equal(whole, rademacher_signs(1, "b.weight", (0, 5000), 128))
    gram = whole.T @ whole / 5000 - torch.eye(128)
    assert gram.abs().max() < 6 / 5000**0.5  # columns are uncorrelated: 6 sigma over 8128 pairs
    gram = whole[:500] @ whole[:500].T / 128 - torch.eye(500)
    assert gram.abs().max() < 6 / 128**0.5  # and so are elements
    assert whole.mean(0).abs().max() < 6 / 5000**0.5
    # fourth order: products of four signs must average out too, or the variance would not be 1/K
    fours = whole[0:4000:4] * whole[1:4000:4] * whole[2:4000:4] * whole[3:4000:4]
    assert fours.mean(1).abs().max() < 6 / 128**0.5
    assert whole[:2, [*range(8), *range(64, 72)]].int().tolist() == GOLDEN_SIGNS


def test_places_are_one_a_block_and_never_meet_inside_a_chunk():
    columns, signs = sjlt_places(keys(1, "a.weight"), (0, 640), 4, 64)
    assert columns.shape == signs.shape == (4, 640)
    for b in range(4):
        for chunk in columns[b].view(-1, 64):
            assert sorted(chunk.tolist()) == list(range(64))
    later, later_signs = sjlt_places(keys(1, "a.weight"), (320, 640), 4, 64)
    assert torch.equal(later, columns[:, 320:])
    assert torch.equal(later_signs, signs[:, 320:])
    assert abs(signs.mean()) < 6 / 2560**0.5
    assert columns[:2, :4].tolist() == GOLDEN_PLACES


@pytest.mark.parametrize("kind", list(KINDS))
def test_projections_keep_inner_products_with_the_variance_of_theory(kind):
    config = KINDS[kind]
    g = rows(24, 9000)
    got = project(config, {"x": g[:, :2000], "y": g[:, 2000:]})
    norm = g.norm(dim=1)
    error = ((got @ got.T - g @ g.T) / torch.outer(norm, norm))[np.triu_indices(24, 1)]
    assert error.abs().max() < 5 / 4096**0.5
    # Var = (1 + cos²) / K for dense signs, no more for sparse ones (276 pairs: the estimate is good to some 15 %)
    assert 0.6 < (error.std() * 4096**0.5) < 1.3


def test_sjlt_is_the_matrix_that_its_places_say():
    config = ProjectionConfig(kind="sjlt", dim=128, seed=5, nonzeros=4)
    g = rows(3, 150).double()
    columns, signs = sjlt_places(keys(5, "x"), (0, 150), 4, 32)
    matrix = torch.zeros(150, 128, dtype=torch.float64)
    for b in range(4):
        matrix[torch.arange(150), b * 32 + columns[b]] = signs[b].double() / 2
    assert torch.allclose(project(config, {"x": g}), g @ matrix, atol=1e-12)


@pytest.mark.parametrize("kind", ["rademacher", "sjlt"])
def test_blocks_and_batches_change_nothing(kind, monkeypatch):
    config = ProjectionConfig(kind=kind, dim=64, nonzeros=2)
    g = rows(6, 500).double()
    whole = project(config, {"x": g})
    monkeypatch.setattr(Rademacher, "BLOCK", 64 * 200)  # three blocks a parameter
    monkeypatch.setattr(Rademacher, "KEPT", 0)
    monkeypatch.setattr(Sjlt, "BLOCK", 64)
    single = torch.cat([project(config, {"x": g[i : i + 1]}) for i in range(6)])
    assert torch.allclose(whole, single, atol=1e-12)
    assert torch.allclose(whole, project(config, {"x": g}), atol=1e-12)


def test_kron_projects_both_sides_without_forming_the_gradient(tiny_model):
    model = load(tiny_model, dtype="float64").model
    config = ProjectionConfig(kind="kron", dim=96, seed=2)
    got = GradientTap(model, "projector", config)(make_batch(model))
    tap = GradientTap(model, "projector", ProjectionConfig(kind="none"))
    raw, expected, begin = tap(make_batch(model)), np.zeros((5, 96)), 0
    a, b = sides(96)
    assert (a, b) == (8, 12)
    for name, p in tap.parameters().items():
        part, begin = raw[:, begin : begin + p.numel()], begin + p.numel()
        if name.endswith("bias"):
            signs = rademacher_signs(2, name, (0, p.numel()), 96, dtype=torch.float64).numpy()
            expected += part @ signs / 96**0.5
            continue
        left = rademacher_signs(2, f"{name} outputs", (0, p.shape[0]), a, dtype=torch.float64).numpy() / a**0.5
        right = rademacher_signs(2, f"{name} inputs", (0, p.shape[1]), b, dtype=torch.float64).numpy() / b**0.5
        expected += np.einsum("noi,oa,ib->nab", part.reshape(5, *p.shape), left, right).reshape(5, -1)
    assert np.abs(got - expected).max() <= 1e-9 * np.abs(expected).max()


def test_targets_give_exact_inner_products_and_norms(tiny_model):
    model = load(tiny_model, dtype="float64").model
    raw = GradientTap(model, "projector", ProjectionConfig(kind="none"))(make_batch(model))
    batch = make_batch(model, [0, 1, 4])
    norms = GradientTap(model, "projector", Norms())(batch)[:, 0]
    assert np.allclose(norms, np.linalg.norm(raw[[0, 1, 4]], axis=1), rtol=1e-12)
    means = Means(2)
    weights = np.zeros((3, 2))
    weights[[0, 1, 2], [0, 1, 1]] = [1 / norms[0], 0.5 / norms[1], 0.5 / norms[2]]
    means.weights_BK = torch.tensor(weights)
    GradientTap(model, "projector", means)(batch)
    tap = GradientTap(model, "projector", Targets(means.sums))
    got = tap(make_batch(model))
    unit = raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-300)
    expected = raw @ np.stack([unit[0], (unit[1] + unit[4]) / 2]).T
    assert np.abs(got - expected).max() <= 1e-9 * np.abs(expected).max()
    exact = tap.norms()
    assert exact is not None
    assert np.allclose(exact.numpy(), np.linalg.norm(raw, axis=1), rtol=1e-12)
    with pytest.raises(InputError, match="make them anew"):
        GradientTap(model, r"re:lm_head", Targets(means.sums))(make_batch(model))


def test_configs_that_cannot_work_say_so():
    with pytest.raises(InputError, match="power of two"):
        ProjectionConfig.parse({"kind": "sjlt", "dim": 96, "nonzeros": 2})
    with pytest.raises(InputError, match="did you mean"):
        ProjectionConfig.parse({"kind": "sjlt", "nonzero": 2})
    with pytest.raises(InputError, match="at most"):
        check_size("w", MOST)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 16, 37, 70])
def test_kernels_make_the_matrix_of_the_reference(kind, dtype, count):
    g = {"x": rows(count, 70_001).to(dtype), "y": rows(count, 31, seed=1).to(dtype)}
    expected = project(KINDS[kind], {n: v.double() for n, v in g.items()})
    got = project(KINDS[kind], {n: v.cuda() for n, v in g.items()}).cpu().double()
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    # one element a row: nothing can average out, so a single wrong sign or column shows
    ones = torch.zeros(count, 70_001, dtype=dtype)
    ones[torch.arange(count), torch.randint(0, 70_001, (count,), generator=torch.Generator().manual_seed(2))] = 1
    assert torch.equal(project(KINDS[kind], {"x": ones.cuda()}).cpu(), project(KINDS[kind], {"x": ones.float()}))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", list(KINDS))
def test_rows_beyond_32_bit_offsets_are_read_from_their_own_place(kind):
    """15 rows × 319,815,680 elements, fast_jl's overflow (spec: LESS §3.2): row 14 must not read row 0's memory."""
    size, count = 319_815_680, 15
    assert size * count > 1 << 32
    g = torch.zeros(count, size, dtype=torch.bfloat16, device="cuda")
    places = torch.tensor([7, 123_456_789, size - 1])
    g[count - 1, places.cuda()] = torch.tensor([1.0, -2.0, 3.0], dtype=torch.bfloat16, device="cuda")
    g[0, :1000] = 5
    last = project(KINDS[kind], {"x": g})[count - 1].cpu()
    expected = torch.zeros(4096)
    for place, value in zip(places.tolist(), (1.0, -2.0, 3.0), strict=True):
        expected += value * _row_of(KINDS[kind], place)
    assert torch.allclose(last, expected, atol=1e-5)


def _row_of(config, element):
    """One row of the reference matrix, whatever the element's number."""
    if config.kind == "rademacher":
        return rademacher_signs(config.seed, "x", (element, element + 1), config.dim)[0] / config.dim**0.5
    width = config.dim // config.nonzeros
    begin = element // width * width
    columns, signs = sjlt_places(keys(config.seed, "x"), (begin, begin + width), config.nonzeros, width)
    row = torch.zeros(config.dim)
    for b in range(config.nonzeros):
        row[b * width + columns[b, element - begin]] = signs[b, element - begin] / config.nonzeros**0.5
    return row
