"""What a report explores, against plain loops: overlaps, shares, counts of the whole pool, samples, the map's axes."""

import json
from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from explored import BUDGETS, explored_of, lay_run
from foreign import vinnow
from vinnow.pipelines.report.explorer.cells import CUTS, cells_of
from vinnow.pipelines.report.explorer.gathering import explore, read_chosen
from vinnow.pipelines.report.explorer.mapped import principal_axes
from vinnow.pipelines.report.explorer.overlap import DEPTH, jaccard_chance, overlap_of, rank_biased, shared_by_depth
from vinnow.pipelines.report.explorer.sample import sample_of
from vinnow.pipelines.report.explorer.scores import Finder, read_scored
from vinnow.pipelines.report.explorer.shares import parts_of, shares_of
from vinnow.pipelines.report.gather import read_picks
from vinnow.select.rows import matrix_scores_table
from vinnow.store.errors import MissingRowsError
from vinnow.store.tables import SCORES, write_rows


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explored")
    pool = lay_run(folder)
    return folder, pool, read_chosen(str(folder), pool, None, read_picks(str(folder), None, []))


def test_scores_of_many_targets_are_read_as_their_best(tmp_path, run):
    _, pool, _ = run
    ids, rng = pool.ids(), np.random.default_rng(1)
    scored = ids[rng.permutation(len(ids))[:50]]
    scores_NT = np.round(rng.normal(size=(50, 3)), 1)
    write_rows(tmp_path / "s.parquet", matrix_scores_table(scored, list("abc"), scores_NT, {}), SCORES)
    read = read_scored(str(tmp_path / "s.parquet"), Finder(ids), ("less", None, "worth"))
    best = dict(zip(scored.tolist(), scores_NT.max(1), strict=True))
    assert [None if np.isnan(v) else v for v in read.best_N] == [best.get(i) for i in ids.tolist()]
    order = sorted(best, key=lambda i: (-best[i], i))
    assert [int(read.rank_N[list(ids).index(i)]) for i in order] == list(range(1, 51))
    assert (read.rank_N == 0).sum() == 10
    with pytest.raises(MissingRowsError, match="not in the pool"):
        Finder(ids).rows(np.array([7], np.uint64), "picks")


def test_overlaps_are_those_of_a_plain_loop(run):
    _, _, chosen = run
    overlap = overlap_of(chosen)
    for label, rows in zip(chosen.budgets(), BUDGETS, strict=True):
        lists = {(c.selector, c.seed): c.rows_K.tolist() for c in chosen.choices if c.budget == label}
        for pair in overlap.pairs[label]:
            both = [(set(lists[pair.first, s]), set(lists[pair.second, s])) for s in (0, 1)]
            assert pair.rows == np.mean([len(a & b) for a, b in both])
            assert pair.jaccard == pytest.approx(np.mean([len(a & b) / len(a | b) for a, b in both]))
            assert pair.share == pytest.approx(pair.rows / rows)
            assert pair.share_chance == pytest.approx(rows / 60)
        assert [s.first for s in overlap.seeds[label]] == list(dict.fromkeys(s for s, _ in lists))
        same = next(s for s in overlap.seeds[label] if s.first == "less")
        assert same.jaccard == same.biased == pytest.approx(1)


def test_what_chance_shares_is_what_random_draws_share():
    rng = np.random.default_rng(0)
    draws = [(set(rng.permutation(50)[:10]), set(rng.permutation(50)[:20])) for _ in range(4000)]
    assert jaccard_chance(50, 10, 20) == pytest.approx(np.mean([len(a & b) / len(a | b) for a, b in draws]), abs=0.004)
    lists = [(rng.permutation(50)[:20], rng.permutation(50)[:20]) for _ in range(2000)]
    by_chance = rank_biased(np.arange(1, 21) ** 2 / 50)
    assert by_chance == pytest.approx(np.mean([rank_biased(shared_by_depth(a, b, 50)) for a, b in lists]), abs=0.01)


def test_rank_biased_overlap_is_webber_s():
    first, second = np.array([3, 1, 4, 0, 9, 2, 6, 5, 8, 7]), np.array([1, 3, 9, 4, 0, 8, 7, 2, 6, 5])
    by_depth = shared_by_depth(first, second, 10)
    assert by_depth.tolist() == [len(set(first[:d]) & set(second[:d])) for d in range(1, 11)]
    p = 0.5  # of ten rows: 1 - 5 / 10
    agreement = [n / d for d, n in enumerate(by_depth, 1)]
    plain = agreement[-1] * p**10 + (1 - p) / p * sum(a * p**d for d, a in enumerate(agreement, 1))
    assert rank_biased(by_depth) == pytest.approx(plain)
    assert rank_biased(np.arange(1, 11)) == pytest.approx(1)
    # the weight of the first fifth, as the page says it (Webber's equation 21)
    p, d = 1 - DEPTH / 5000, 1000
    lost = sum(p**i / i for i in range(1, d))
    assert 1 - p ** (d - 1) + (1 - p) / p * d * (np.log(1 / (1 - p)) - lost) == pytest.approx(0.85, abs=0.005)


def test_shares_are_counted_against_the_pool(run):
    _, pool, chosen = run
    by = {one.what: one for one in shares_of(chosen)}
    sources, taken = pool.column("source"), next(c for c in chosen.choices if c.selector == "less")
    one = by["source"]
    for v, value in enumerate(one.values):
        assert one.pool_V[v] == (sources == value).sum()
        assert one.taken[taken.budget]["less"][v] == (sources[taken.rows_K] == value).sum()
    lengths = next(one for what, one in by.items() if what.startswith("length in characters"))
    assert lengths.pool_V.sum() == 60
    codes, names = parts_of(np.array([5] * 50 + list(range(50))))
    assert len(names) == codes.max() + 1 <= 10
    assert np.bincount(codes).min() > 0


@pytest.mark.parametrize("state", ["all", "taken"])
def test_counts_of_the_whole_pool_are_exact(run, state):
    """Summed as the page's script does, for every filter, against a loop over rows."""
    _, _, chosen = run
    cells = cells_of(chosen)
    for n, choice in enumerate(chosen.choices):
        ranking = chosen.scores_of(choice)
        triples = cells.counts["choices"][n]
        if state == "all":
            triples = cells.counts["rankings"][[s is ranking for s in chosen.scored].index(True)]
        rows = choice.rows_K if state == "taken" else np.arange(60)
        for source, pictured, last in product((0, 1), (0, 1), (0, 4, len(CUTS) - 1)):
            cell = [(s, p) == (source, pictured) for s, _, p, _ in cells.counts["cells"]]
            counted = sum(k for c, part, k in triples if cell[c] and part <= last)
            top = np.ceil(CUTS[last] * 60)
            fits = (cells.source_N == source) & (chosen.pictured_N == pictured) & (ranking.rank_N <= top)
            assert counted == fits[rows].sum()


def test_a_sample_shows_each_choice_s_ends_and_says_how(run):
    folder, pool, chosen = run
    sample = sample_of(chosen, np.arange(60), held=40)
    assert len(sample.held_H) == len(set(sample.held_H.tolist())) == 40
    assert sample.points_P[:40].tolist() == sample.held_H.tolist()
    assert "40 of 60 records are here" in sample.said
    for choice in chosen.choices:
        assert choice.rows_K[0] in sample.held_H
    assert np.array_equal(sample.held_H, sample_of(chosen, np.arange(60), held=40).held_H)
    assert sample_of(chosen).said == "All 60 records of the pool are here."
    payload = explore(str(folder), pool, chosen, held=40).explorer.payload
    assert (len(payload["full"]), len(payload["brief"]), payload["total"]) == (40, 60, 60)
    assert payload["id"] == [str(i) for i in pool.ids()[sample.points_P]]


def test_axes_of_the_map_are_principal():
    rng = np.random.default_rng(0)
    x_ND = rng.normal(size=(300, 40)) * np.array([9.0, 6.0] + [1.0] * 38)
    x_ND = (x_ND - x_ND.mean(0)).astype(np.float32)
    axes_2D, shares = principal_axes(x_ND)
    _, strength, axes = np.linalg.svd(x_ND.astype(np.float64), full_matrices=False)
    assert np.abs((axes_2D * axes[:2]).sum(1)) == pytest.approx([1, 1], abs=1e-4)
    assert shares == pytest.approx((strength[:2] ** 2 / (strength**2).sum()).tolist(), rel=1e-4)
    assert principal_axes(np.zeros((3, 4), np.float32))[1] == (0.0, 0.0)


def test_a_run_without_features_has_no_map(tmp_path):
    import shutil

    folder = tmp_path / "run"
    pool = lay_run(folder)
    shutil.rmtree(folder / "features")
    explored = explore(str(folder), pool, read_chosen(str(folder), pool, None, read_picks(str(folder), None, [])))
    assert explored.explorer.map is None
    assert "map" not in explored.explorer.payload


def test_show_tells_all_of_one_record(run):
    folder, pool, chosen = run
    i = int(chosen.choices[0].rows_K[0])
    said = vinnow("show", folder, pool.ids()[i], "--json")
    assert said.code == 0, said.text
    told = json.loads(said.text)
    (record,) = pool.take(pool.ids()[i : i + 1])
    assert told["conversations"] == record.conversations
    assert [s["rank"] for s in told["scores"]] == [int(s.rank_N[i]) for s in chosen.scored]
    assert [c["taken"] for c in told["choices"]] == [i in c.rows_K for c in chosen.choices]
    assert "taken" in vinnow("show", folder, pool.ids()[i]).text
    for wrong, says in (("7", "not 7"), ("x", "whole number")):
        refused = vinnow("show", folder, wrong)
        assert refused.code == 2
        assert says in refused.text


def test_texts_and_names_are_whatever_they_are(tmp_path):
    explored = explored_of(tmp_path, say=lambda text: f"{text}\x1b[2J<b>")
    assert "\x1b" not in json.dumps(explored.explorer.payload, ensure_ascii=False)
    assert pa.array(explored.explorer.payload["tasks"]).null_count == 0
