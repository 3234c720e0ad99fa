"""The answer: costs by hand numbers, the Pareto front by brute force, the same rows in terminal, page, CSV and Parquet."""

import csv
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evals import evals
from finished import STAND_INS, values_of
from foreign import vinnow
from reports import HOSTILE, figures, priced, read, trial
from reports import answers as made_up
from rich.console import Console
from vinnow.evaluate.statistics.interval import Interval
from vinnow.pipelines.report.answer import answers, sentence
from vinnow.pipelines.report.answer_columns import ANSWER, COLUMNS
from vinnow.pipelines.report.answer_columns import page as columns_page
from vinnow.pipelines.report.answer_files import answer_csv, answer_table, write_answer
from vinnow.pipelines.report.answer_shown import cost_section
from vinnow.pipelines.report.build import page
from vinnow.pipelines.report.costs import Choosing, Costs, Trained
from vinnow.pipelines.report.data import ReportData, Trial
from vinnow.pipelines.report.economics import break_even, dominators, relative_cost, reuses
from vinnow.pipelines.report.gather import by_run_of, gather
from vinnow.pipelines.report.headline import headline
from vinnow.pipelines.report.terminal import headline_table
from vinnow.pipelines.runs.stage import Held
from vinnow.select.seconds import timed, took
from vinnow.store.errors import DamagedError
from vinnow.store.files import read_json
from vinnow.store.tables import EVALS

ROOT = Path(__file__).parents[2]


def test_c_by_hand():
    # P_sub is 95 % of P_full, 30 + 120 seconds of 600: 0.25 / 0.95
    c = relative_cost(Interval(95.0, 90.0, 100.0), 150.0, 600.0)
    assert (c.estimate, c.low, c.high) == pytest.approx((0.25 / 0.95, 0.25, 0.25 / 0.9))
    assert relative_cost(Interval.unknown(95.0), 150.0, 600.0).estimate == pytest.approx(0.25 / 0.95)
    assert relative_cost(Interval(5.0, -1.0, 11.0), 150.0, 600.0).high == math.inf
    assert relative_cost(Interval(95.0, 90.0, 100.0), 150.0, 0.0) is None
    assert relative_cost(Interval(0.0, 0.0, 1.0), 150.0, 600.0) is None


@pytest.mark.parametrize(
    ("choosing", "per_row", "rows"),
    [(0.0, 0.6, 1000), (300.0, 0.6, 500), (299.9, 0.6, 500), (300.1, 0.6, 499), (600.0, 0.6, None), (700.0, 0.6, None),
     (100.0, 0.1, 1000), (100.0, 0.0, 1000)],
)  # fmt: skip
def test_break_even_by_hand(choosing, per_row, rows):
    """600 seconds of training on all 1,000 rows."""
    assert break_even(choosing, per_row, 600.0, 1000) == rows


@pytest.mark.parametrize(
    ("choosing", "training", "uses"),
    [(0.0, 100.0, 0), (480.0, 100.0, 1), (500.0, 100.0, 1), (501.0, 100.0, 2), (1500.0, 100.0, 3), (1.0, 600.0, None),
     (1.0, 700.0, None)],
)  # fmt: skip
def test_reuses_by_hand(choosing, training, uses):
    assert reuses(choosing, training, 600.0) == uses


def test_the_front_is_that_of_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(1, 9))
        # few values, so that many are equal
        costs = [None if rng.random() < 0.1 else float(c) for c in rng.integers(1, 5, n)]
        scores = rng.integers(0, 4, n).astype(float).tolist()
        by = dominators(costs, scores)
        for i in (i for i in range(n) if costs[i] is None):
            assert by[i] is None
            assert i not in by
        for i in (i for i in range(n) if costs[i] is not None):
            beaten = [
                j for j in range(n) if costs[j] is not None and costs[j] <= costs[i] and scores[j] >= scores[i]
                and (costs[j], scores[j]) != (costs[i], scores[i])
            ]  # fmt: skip
            assert (by[i] is None) == (not beaten)
            assert by[i] is None or (by[i] in beaten and by[by[i]] is None)


def told(trials, costs=None, **fields):
    data = ReportData(trials=trials, costs=priced(trials) if costs is None else costs, **fields)
    rows = headline(trials)
    return data, {(a.row.selector, a.row.budget): a for a in answers(rows, data)}


def four():
    less, full = trial("less", "10%", 1400, 0.55), trial("full", "100%", 14000, 0.75)
    return [trial("random", "10%", 1400, 0.40), less, replace(full, train_seconds=125.0)]


def test_a_choice_is_priced_as_if_it_were_alone():
    _, by = told(four())
    less, random, full = by["less", "10%"], by["random", "10%"], by["full", "100%"]
    assert less.price.parts == {"training": 40, "features": 60, "targets": 0, "scoring": 3, "picking": 0.5}
    # the proxy is shared by two
    assert (less.price.alone, less.price.split) == (103.5, 83.5)
    assert (less.price.training, less.price.answering, less.price.reads) == (25, 7, 2_000_000)
    assert less.rule == "votes"
    assert less.of_full == pytest.approx(128.5 / 250)
    assert less.c.estimate == pytest.approx(0.75 / 0.55 * 128.5 / 250)
    share = less.row.relative.average
    assert (less.c.low, less.c.high) == pytest.approx([100 / s * 128.5 / 250 for s in (share.high, share.low)])
    # 25 seconds for 1,400 rows; 250 − 103.5 are left
    assert less.break_even == int((250 - 103.5) / (25 / 1400))
    assert less.reuses == 1  # 103.5 / (250 − 25)
    assert (random.price.alone, random.reuses, random.break_even) == (0, 0, 14000)
    assert random.c.estimate == pytest.approx(0.75 / 0.40 * 25 / 250)
    assert (full.price.alone, full.c, full.break_even, full.reuses) == (0, None, None, None)
    assert [a.on_front for a in (random, less, full)] == [True, True, True]
    # as little as random reaches, for more
    _, by = told([*four(), trial("xmas", "10%", 1400, 0.40)])
    assert (by["xmas", "10%"].dominated_by, by["xmas", "10%"].on_front) == ("less at 10%", False)


def test_never_is_no_number_and_unknown_says_why():
    trials = [replace(t, train_seconds=12.5) for t in four()]
    _, by = told(trials)
    less = by["less", "10%"]
    assert (less.break_even, less.reuses, less.unknown) == (None, None, "")
    trials = four()
    costs = priced(trials)
    costs.choosing["less"] = Choosing("", costs.choosing["less"].parts)  # scored by an older version
    data, by = told(trials, costs)
    less = by["less", "10%"]
    assert (less.price.alone, less.price.whole, less.c, less.on_front) == (None, None, None, False)
    assert less.unknown == "scoring not recorded; picking not recorded"
    assert less.price.training == 25
    text = " ".join(read(page(data)).text)
    assert "?" in text.split("What each choice cost")[1]
    # without a training on everything
    data, by = told(trials[:2])
    less = by["less", "10%"]
    assert (less.full, less.of_full, less.c, less.break_even, less.reuses) == (None,) * 5
    assert less.unknown == "no training on everything"
    assert less.price.whole == 128.5
    _, by = told(trials, Costs(None, {}, costs.trials, 14000))
    assert by["less", "10%"].unknown == "some of the work held GPUs and some trainings did not"
    data = ReportData(trials=trials)
    (less,) = [a for a in answers(headline(trials), data) if a.row.selector == "less"]
    assert less.price.whole is None
    assert "no config" in less.unknown


def test_a_process_without_a_gpu_keeps_one_waiting():
    trials = four()
    costs = priced(trials)
    held = {key: Trained(Held(4 * t.training.cpu, t.training.cpu), None) for key, t in costs.trials.items()}
    costs = Costs("GPU", costs.choosing, held, 14000)
    _, by = told(trials, costs)
    less = by["less", "10%"]
    # stages that held no GPU count their seconds by the clock, and scoring does
    assert less.price.parts == {"training": 20, "features": 15, "targets": 0, "scoring": 3, "picking": 0.5}
    assert (less.price.training, less.price.answering) == (100, None)


def test_seeds_are_averaged_and_a_missing_one_is_not_left_out():
    trials = [replace(t, seed=s, evals=made_up(f"{t.selector}{s}", 0.5)) for t in four() for s in (0, 1)]
    costs = priced(trials)
    costs.choosing["less"].seconds["10%", 1] = {"scoring": 5.0, "picking": 0.5}
    _, by = told(trials, costs)
    assert by["less", "10%"].price.parts["scoring"] == 4
    assert by["less", "10%"].price.scoring_cpu is None
    del costs.choosing["less"].seconds["10%", 1]
    _, by = told(trials, costs)
    assert by["less", "10%"].price.parts["scoring"] is None


def test_the_sentence():
    trials = four()
    _, by = told(trials)
    said = sentence(list(by.values()))
    assert re.fullmatch(
        r"less at 10% beats random by 15\.0 \[\d+\.\d,\xa0\d+\.\d\] points at 0\.51 of the full cost; nothing else does\.",
        said,
    )
    worse = [*trials, trial("xmas", "10%", 1400, 0.30)]
    _, by = told(worse)
    assert sentence(list(by.values())).endswith("nothing else does. Worse than random: xmas at 10%.")
    _, by = told([trials[0], trial("xmas", "10%", 1400, 0.41), trials[2]])
    said = sentence(list(by.values()))
    assert said.startswith("Nothing beats random here; xmas at 10% comes nearest (1.0 [")
    assert re.search(r"Its comparison would have told \d+\.\d points or more\.$", said)
    _, by = told(trials[1:])
    assert "Nothing was held against random" in sentence(list(by.values()))
    many = [trials[0], *(trial(f"s{i}", "10%", 1400, 0.55 + i / 100) for i in range(5))]
    _, by = told(many)
    said = sentence(list(by.values()))
    assert said.startswith("s4 at 10% beats random by 19.0")
    assert said.endswith("2 other choices do, too.")


def test_csv_and_parquet_hold_the_same_and_no_formula(tmp_path):
    label = "=cmd|' /C calc'!A0"
    trials = [*four(), trial(label, "10%", 1400, 0.3), trial(HOSTILE, "10%", 1400, 0.2)]
    data = ReportData(trials=trials, costs=priced(trials))
    rows = answers(headline(trials), data)
    paths = write_answer(str(tmp_path), rows)
    assert [Path(p).name for p in paths] == ["answer.csv", "answer.parquet"]
    table = pq.read_table(paths[1])
    assert table.schema.equals(ANSWER)
    assert table.equals(answer_table(rows))
    text = Path(paths[0]).read_text(encoding="utf-8")
    assert text == answer_csv(rows)
    cells = list(csv.reader(io.StringIO(text)))
    assert cells[0] == ANSWER.names == [c.name for c in COLUMNS]
    for line, row in zip(cells[1:], table.to_pylist(), strict=True):
        for cell, value, column in zip(line, row.values(), COLUMNS, strict=True):
            if value is None:
                assert cell == ""
            elif column.kind in (pa.float64(), pa.int64()):
                assert float(cell) == value
            else:
                assert not cell.startswith(("=", "+", "-", "@"))
    assert f"'{label}" in [line[0] for line in cells]
    assert label in table["selector"].to_pylist()
    assert "inf" not in text
    assert "nan" not in text


def test_the_terminal_fits_80_columns():
    trials = [
        *four(),
        trial("less_exact-round_robin", "10%", 1400, 0.41),
        trial("perplexity_middle", "123456", 123456, 0.7),
    ]
    data = ReportData(trials=trials, costs=priced(trials))
    out = io.StringIO()
    Console(file=out, width=80).print(headline_table(data))
    shown = out.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    for head in ("sees", "of full", "up to", "after", "choose"):
        assert head in shown
    assert shown.index("beats random by") < shown.index("Accuracy on")


def test_the_page_has_the_answer_first_and_the_front_drawn():
    trials = [*four(), trial("xmas", "10%", 1400, 0.40)]
    data = ReportData(trials=trials, costs=priced(trials))
    markup = page(data)
    seen = read(markup)
    text = " ".join(" ".join(seen.text).split())
    assert text.index("beats random by 15.0") < text.index("Every choice, and what it reached")
    assert "behind less at 10%" in text
    assert "103.5" not in text  # seconds are shown in three digits, as 104
    assert HOSTILE.replace("\x00", "\ufffd") in text  # a note
    chart = figures(markup)["chart-pareto"]
    names = [t["name"] for t in chart["data"]]
    assert names == ["random", "less", "xmas", "full", "Pareto front"]
    front = chart["data"][-1]
    assert (front["x"], front["y"]) == ([25, 128.5, 250], pytest.approx([40, 55, 75]))
    assert [t["marker"]["symbol"][0].endswith("-open") for t in chart["data"][:-1]] == [False, False, True, False]
    assert cost_section(ReportData(trials=trials), headline(trials)) is None


def test_a_run_s_answers_are_told_apart_in_one_pass():
    rows = [("a", 3), ("b", 2), ("a", 1), ("c", 2)]
    tables = [evals([0] * n, [f"{run}{i}{n}" for i in range(n)], run) for run, n in rows]
    by = by_run_of(pa.concat_tables(tables))
    assert {run: t["sample"].to_pylist() for run, t in by.items()} == {
        "a": ["a03", "a13", "a23", "a01"], "b": ["b02", "b12"], "c": ["c02", "c12"],
    }  # fmt: skip
    assert by_run_of(EVALS.empty_table()) == {}


def test_what_scoring_took_is_noted_where_it_ends_well(tmp_path):
    out = str(tmp_path)
    assert took(out, "scored", "key") is None
    with pytest.raises(RuntimeError), timed(out, "scored", "key"):
        raise RuntimeError("killed")
    assert took(out, "scored", "key") is None
    with timed(out, "scored", "key"):
        sum(range(300_000))
    with timed(out, "picked", "less-10pct.parquet"):
        pass
    noted = took(out, "scored", "key")
    assert noted.cpu > 0
    assert noted.seconds > 0
    assert took(out, "picked", "less-10pct.parquet").seconds >= 0
    (tmp_path / "scores" / "seconds.json").write_text("[]")
    with pytest.raises(DamagedError, match="note of seconds"):
        took(out, "scored", "key")


def test_a_run_leaves_its_answer_and_report_writes_it_again(tmp_path, monkeypatch):
    config = values_of(tmp_path) | {"seeds": [0, 1], "sweep": {"full": True}}
    (tmp_path / "run.yaml").write_text(json.dumps(config))
    for (where, name), stand_in in STAND_INS.items():
        monkeypatch.setattr(where, name, stand_in)
    said = vinnow("run", tmp_path / "run.yaml", seconds=200)
    assert said.code == 0, said.text
    out = tmp_path / "out"
    seconds = read_json(out / "stages" / "select.json")["facts"]["seconds"]
    assert set(seconds) == {f"{s}|20%|{n}" for s in ("random", "less", "xmas") for n in (0, 1)}
    assert all(one["scoring"] > 0 and one["picking"] > 0 for one in seconds.values())
    # less does not depend on the seed, and is scored once; xmas is scored twice
    assert seconds["less|20%|0"]["scoring"] == seconds["less|20%|1"]["scoring"]
    assert seconds["xmas|20%|0"]["scoring"] != seconds["xmas|20%|1"]["scoring"]
    rows = {r["selector"]: r for r in pq.read_table(out / "answer.parquet").to_pylist()}
    records = {n: read_json(out / "stages" / f"{n}.json") for n in ("proxy", "features-gradient", "targets-gradient")}
    less = rows["less"]
    # one CPU each for the proxy and the features' actor, and what prepares batches beside it
    loaders = gather(str(out)).about.config["actors"]["loaders"]
    assert less["proxy_s"] == pytest.approx(records["proxy"]["seconds"])
    for part in ("features", "targets"):
        assert less[f"{part}_s"] == pytest.approx((1 + loaders) * records[f"{part}-gradient"]["seconds"])
    assert less["select_s"] == pytest.approx(
        sum(less[f"{part}_s"] for part in ("proxy", "features", "targets", "scoring", "picking"))
    )
    assert less["select_shared_s"] == pytest.approx(less["select_s"] - less["proxy_s"] / 2)
    assert less["feature_bytes"] == sum(records[f"{n}-gradient"]["facts"]["bytes"] for n in ("features", "targets"))
    assert (rows["xmas"]["targets_s"], rows["random"]["select_s"], rows["full"]["select_s"]) == (0, 0, 0)
    assert less["train_s"] == pytest.approx(0.3)
    before = (out / "answer.csv").read_bytes()
    (out / "answer.csv").unlink()
    again = vinnow("report", out)
    assert again.code == 0, again.text
    assert (out / "answer.csv").read_bytes() == before
    # a stage that was done twice, and one that nobody timed, are said
    record = read_json(out / "stages" / "select.json")
    record["facts"].pop("seconds")
    record["starts"] = 2
    (out / "stages" / "select.json").write_text(json.dumps(record))
    again = vinnow("report", out)
    text = " ".join(again.text.split())
    assert "Done in several starts, whose seconds are added up: select (2)." in text
    assert "What scoring took is not known of less, xmas" in text


def test_the_page_of_columns_is_made_of_them():
    page_text = (ROOT / "docs" / "answer.md").read_text(encoding="utf-8")
    assert columns_page() in page_text, "put what `answer_columns.page()` returns into docs/answer.md"


def test_equal_choices_do_not_make_seeds_look_surer():
    """A label that is another one again gives the spread over seeds no degree of freedom."""
    rng = np.random.default_rng(0)
    trials = []
    for seed in range(3):
        for selector in ("random", "less"):
            scores = (rng.random(200) < 0.5 + 0.02 * seed).astype(float)
            trials.append(Trial(selector, "10%", seed, 10, 1.0, evals(scores)))
        trials.append(replace(trials[-1], selector="less-again"))
    rows = {r.selector: r for r in headline(trials)}
    assert rows["less"].against_random.sure.seeds.freedom == 2
    assert rows["less"].against_random.difference == rows["less-again"].against_random.difference


def test_choices_that_are_one_training_are_one_comparison():
    trials = [trial("random", "10%", 1400, 0.40), trial("less", "10%", 1400, 0.47), trial("xmas", "10%", 1400, 0.44)]
    apart = {r.selector: r.against_random for r in headline(trials)}
    known = [replace(t, trained_as=f"{t.selector}-10pct-s0") for t in trials]
    again = [replace(known[1], selector=f"less-{rule}") for rule in ("top", "own")]
    told_once = {r.selector: r.against_random for r in headline([*known, *again])}
    for name in ("less", "xmas"):
        assert told_once[name].comparisons == apart[name].comparisons == 2
        assert told_once[name].p_adjusted == apart[name].p_adjusted
        assert told_once[name].detectable == pytest.approx(apart[name].detectable)
    assert told_once["less-top"] == told_once["less"] == told_once["less-own"]
    unknown = {r.selector: r.against_random for r in headline([*trials, *(replace(t, trained_as="") for t in again)])}
    assert unknown["xmas"].comparisons == 4
