"""Budgets, score files used again or made anew, and the laws that every PICKS file is held to."""

import os

import numpy as np
import pyarrow as pa
import pytest
from vinnow.select import registry
from vinnow.select.needs import Needs
from vinnow.select.rows import read_notes
from vinnow.select.run import budget_rows, load_scores, refuse_repeats, select
from vinnow.store.errors import DuplicateRowsError, InputError
from vinnow.store.tables import PICKS, SCORES, read_rows

NEEDS = Needs(("gradient",), targets=True)


@pytest.mark.parametrize(
    ("budget", "rows"),
    [(1, 1), ("45", 45), ("10%", 20), (" 12.5 % ".strip(), 25), ("100%", 200), (200, 200), ("0.9%", 1), ("29.4%", 58)],
)
def test_budgets_are_counts_or_shares(budget, rows):
    assert budget_rows(budget, 200) == rows


def test_shares_are_rounded_down_as_they_are_written():
    """LESS and XMAS floor; 0.29 · 100 and 0.57 · 100 in binary numbers lie under 29 and 57."""
    for share in range(1, 101):
        assert budget_rows(f"{share}%", 100) == share
        assert budget_rows(f"{share}%", 665_298) == 665_298 * share // 100
    assert budget_rows("5%", 59) == 2


@pytest.mark.parametrize("budget", [0, -1, 201, "0%", "0.1%", "0.4%", "101%", "many", "1.5", "nan%", "inf%", "%", ""])
def test_a_budget_that_does_not_fit_names_itself(budget):
    with pytest.raises(InputError, match="budget"):
        budget_rows(budget, 200)


def test_one_file_a_budget_by_name_and_seed(world, written, tmp_path):
    paths = select(world.view(written, Needs()), "stratified", {}, [7, "10%"], 0, str(tmp_path))
    assert paths == {
        "7": f"{tmp_path}/picks/stratified-7.parquet",
        "10%": f"{tmp_path}/picks/stratified-10pct.parquet",
    }
    assert read_rows(paths["10%"], PICKS).num_rows == 9
    assert select(world.view(written, Needs()), "stratified", {}, [7], 4, str(tmp_path))["7"].endswith(
        "stratified-7-s4.parquet"
    )
    assert sorted(os.listdir(tmp_path / "scores")) == ["seconds.json", "stratified-s4.parquet", "stratified.parquet"]


@pytest.fixture
def count_scores(monkeypatch):
    """Count how often LESS scores."""
    calls = []
    kind = type(registry.make("less"))
    real = kind.score
    monkeypatch.setattr(kind, "score", lambda self, view, seed: (calls.append(seed), real(self, view, seed))[1])
    return calls


def test_scores_are_made_once_for_all_budgets_and_seeds(world, written, tmp_path, count_scores):
    first = select(world.view(written, NEEDS), "less", {}, [5, "20%"], 0, str(tmp_path))
    select(world.view(written, NEEDS), "less", {"aggregate": "max"}, [8], 0, str(tmp_path))
    again = select(world.view(written, NEEDS), "less", {}, [5], 1, str(tmp_path))  # LESS does not draw lots
    assert count_scores == [0]
    one, two = (read_rows(p["5"], PICKS) for p in (first, again))
    assert one["sample_id"].equals(two["sample_id"])
    assert two["seed"].unique().to_pylist() == [1]
    kept = read_rows(tmp_path / "scores" / "less.parquet", SCORES)
    assert read_notes(kept)["zero_rows"]["10"] > 0


def test_stale_scores_are_made_anew(world, written, tmp_path, count_scores):
    out = str(tmp_path / "out")

    def go(view, **config):
        before = len(count_scores)
        load_scores(view, registry.make("less", config), 0, out)
        return len(count_scores) - before

    assert go(world.view(written, NEEDS)) == 1
    assert go(world.view(written, NEEDS)) == 0
    assert go(world.view(written, NEEDS), targets=["color"]) == 1
    assert go(world.view(written, NEEDS, checkpoint_weights={10: 1, 20: 2, 30: 3}), targets=["color"]) == 1
    assert go(world.view(written, NEEDS, refused=world.ids[:1])) == 1
    assert go(world.view(written, NEEDS)) == 1
    other = tmp_path / "other"
    world.write(other, kinds=["gradient"])
    assert go(world.view(other, NEEDS)) == 0  # the same keys in another folder are the same features
    world.write_targets(other, pool="u" * 16)
    assert go(world.view(other, NEEDS)) == 1
    assert go(world.view(written, NEEDS)) == 1
    coarse = world.write(tmp_path / "coarse", kinds=["gradient"], dtype="int8")
    assert go(world.view(coarse, NEEDS)) == 1  # the same keys, but other numbers


def test_scores_follow_the_pools_columns(world, written, tmp_path):
    view = world.view(written, Needs())
    select(view, "stratified", {}, [9], 0, str(tmp_path))
    view = world.view(written, Needs())
    view.columns["source"] = np.array(["one"] * world.n, object)
    picks = select(view, "stratified", {}, [9], 0, str(tmp_path))["9"]
    assert read_rows(picks, PICKS)["group"].unique().to_pylist() == [0]


def test_scores_follow_the_methods_code(world, written, tmp_path, monkeypatch):
    view = world.view(written, Needs())
    load_scores(view, registry.make("random"), 0, str(tmp_path))
    path = tmp_path / "scores" / "random.parquet"
    written_ns = path.stat().st_mtime_ns
    load_scores(view, registry.make("random"), 0, str(tmp_path))
    assert path.stat().st_mtime_ns == written_ns
    monkeypatch.setattr(registry, "source_digest", lambda selector: "edited")
    load_scores(view, registry.make("random"), 0, str(tmp_path))
    assert path.stat().st_mtime_ns > written_ns


def test_a_damaged_score_file_is_made_anew(world, written, tmp_path):
    view, path = world.view(written, Needs()), tmp_path / "scores" / "random.parquet"
    whole = load_scores(view, registry.make("random"), 0, str(tmp_path))
    sound = path.read_bytes()
    for damaged in (b"PAR1 cut short", sound[:100] + bytes([sound[100] ^ 4]) + sound[101:]):
        path.write_bytes(damaged)
        assert load_scores(view, registry.make("random"), 0, str(tmp_path)).equals(whole)
        assert path.read_bytes() == sound


def broken(picks, how, pool):
    column = {n: picks[n] for n in picks.column_names}
    if how == "twice":
        column["sample_id"] = pa.array([pool[0]] * len(picks), pa.uint64())
    if how == "strange":
        column["sample_id"] = pa.array(range(len(picks)), pa.uint64())
    if how == "ranks":
        column["rank"] = pa.array([0] * len(picks), pa.int64())
    if how == "name":
        column["selector"] = pa.repeat("other", len(picks))
    return picks.slice(1) if how == "short" else pa.table(column)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("twice", DuplicateRowsError, "4 of 5"),
        ("strange", InputError, "not in the pool"),
        ("ranks", InputError, "ranks"),
        ("name", InputError, "'selector'"),
        ("short", InputError, "returned 4 rows for a budget of 5"),
    ],
)
def test_a_method_that_breaks_a_law_is_stopped(world, written, tmp_path, monkeypatch, how, error, message):
    kind = type(registry.make("random"))
    real = kind.pick
    monkeypatch.setattr(kind, "pick", lambda *args: broken(real(*args), how, world.ids))
    with pytest.raises(error, match=message):
        select(world.view(written, Needs()), "random", {}, [5], 0, str(tmp_path))
    assert not (tmp_path / "picks").exists()


@pytest.mark.parametrize(("value", "message"), [(np.nan, "not finite"), (None, "not in the pool")])
def test_scores_that_are_not_finite_or_of_other_rows_are_stopped(world, written, tmp_path, monkeypatch, value, message):
    def score(self, view, seed):
        ids = np.arange(3, dtype=np.uint64) if value is None else view.ids[:3]
        columns = {
            "sample_id": ids,
            "target": ["", "", ""],
            "group": [0, 0, 0],
            "score": [1.0, value or 0.0, 2.0],
        }
        return pa.table(columns)

    monkeypatch.setattr(type(registry.make("random")), "score", score)
    with pytest.raises(InputError, match=message):
        select(world.view(written, Needs()), "random", {}, [1], 0, str(tmp_path))


def test_a_share_over_all_and_a_budget_given_twice_are_refused():
    with pytest.raises(InputError, match="101% is more than the whole pool"):
        budget_rows("101%", 32)  # 101 % of 32 rows is 32, rounded down
    for twice in (["10%", "10.0%"], [5, "5"], ["010%", "10%"]):
        with pytest.raises(InputError, match="is given twice"):
            refuse_repeats(twice)
    refuse_repeats(["10%", 10, "20%"])
