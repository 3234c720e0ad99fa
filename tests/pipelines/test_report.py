"""The report: it holds the numbers, escapes what is hostile, loads nothing, says why a part is missing."""

import base64
import hashlib
import html
import io
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from jinja2 import UndefinedError
from pictures import make_records
from PIL import Image
from plotly.offline import get_plotlyjs
from reports import answers, figures, full_data, read, trial, unbundled
from rich.console import Console
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.stream import make_spec, run_inline
from vinnow.evaluate.metrics import majority_baseline
from vinnow.models.projections.config import ProjectionConfig
from vinnow.pipelines.report import build
from vinnow.pipelines.report.build import build_report, page
from vinnow.pipelines.report.composition import MOST
from vinnow.pipelines.report.data import ReportData, Trial
from vinnow.pipelines.report.gather import by_source, gather
from vinnow.pipelines.report.headline import headline
from vinnow.pipelines.report.hours import Held
from vinnow.pipelines.report.markup import Table, as_json, render
from vinnow.pipelines.report.sections import SECTIONS
from vinnow.pipelines.report.terminal import headline_table
from vinnow.pipelines.runs.picking import make_view
from vinnow.pool.reader import Pool
from vinnow.select.needs import Needs
from vinnow.select.run import select
from vinnow.store.errors import InputError
from vinnow.store.manifest import Manifest
from vinnow.store.tables import EVALS, SCORES, read_rows, write_rows

UTC = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@pytest.fixture(scope="module")
def markup(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    path = build_report(str(folder), full_data(folder))
    assert path == str(folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_it_is_well_formed_and_loads_nothing(markup):
    seen = read(markup)
    sources = [v for _, k, v in seen.attributes if k in ("src", "href", "xlink:href", "action", "data")]
    assert sources
    assert all(v.startswith(("data:image/", "#")) for v in sources)
    assert not [k for _, k, _ in seen.attributes if k.startswith("on")]
    style = re.search("<style>(.*?)</style>", markup, re.DOTALL).group(1)
    assert "url(" not in style
    assert "@import" not in style
    assert ("meta", "http-equiv", "Content-Security-Policy") in seen.attributes
    for name, title, _, _ in SECTIONS:
        assert f'<a href="#{name}">{title}</a>' in markup
        assert f'<section id="{name}">' in markup


def test_what_may_run_is_the_library_and_what_draws_and_nothing_else(markup):
    (policy,) = [v for n, k, v in read(markup).attributes if (n, k) == ("meta", "content") and "default-src" in v]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    # pictures that are made here: thumbnails, and a chart's download
    assert rules["img-src"] == "data: blob:"
    run = re.findall("<script>(.*?)</script>", markup, re.DOTALL)
    ours = ["page.js", *(f"explorer/{name}.js" for name in build.EXPLORER)]
    folder = Path(build.__file__).parent
    assert run == [*((folder / n).read_text() for n in ours), get_plotlyjs(), (folder / "draw.js").read_text()]
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in run]
    assert rules["script-src"].split() == hashes
    # every other script is the data of a figure or of the records, which no browser runs
    assert len(re.findall("<script", markup)) == len(run) + len(figures(markup)) + 1
    # the library once, however many charts; and none where there is no chart
    assert len(markup) < 1.1 * len(get_plotlyjs())
    assert len(page(ReportData())) < 20_000
    assert "script-src 'none'" in html.unescape(page(ReportData()))


def test_no_address_is_in_the_page_but_as_text(markup):
    ours = unbundled(markup)
    assert set(re.findall(r"https?://[^\s&<\\]+", ours)) == {"http://evil.example/x.js"}
    assert not re.search(r"""(src|href|action|url)\s*[=(]\s*["']?(https?:)?//""", ours)
    # nor does the library offer to send a figure away, which it would by itself
    assert "showSendToCloud: false" in markup
    assert 'plotlyServerURL: ""' in markup


def test_it_holds_the_numbers(markup):
    text = " ".join(read(markup).text)
    for number in ("40.0", "55.0", "61.0", "75.0", "14,000", "4,200", "1,400", "14,041", "7,917"):
        assert number in text, number
    assert "beats random" in text
    assert "not told apart" in text
    assert "worse than random" in text
    assert "+15.0 [" in text
    assert "cluster 1: 4,567 rows" in text
    assert "10%: taken from 1.282" in text
    assert "7,025.5" in text  # rows per second of the ingest
    assert "98.0" in text
    assert "pool: 2 refused rows" in text
    assert "6,123" in text
    assert "1,377" in text
    assert f"the {MOST} commonest of {MOST + 1}" in text
    assert f"s{MOST - 1} " in text
    assert f"s{MOST} " not in text
    assert "image missing" in text  # the lost thumbnail
    assert "text only" in text


def test_hostile_text_is_shown_not_obeyed(markup):
    text = " ".join(read(markup).text)
    assert text.count("alert(1)") >= 8
    assert "<script" not in unbundled(markup)
    assert "onerror=&#34;a()" in markup
    assert "\x00" not in markup


def test_thumbnails_are_the_pictures(markup, tmp_path):
    pictures = make_records(5)[1]
    uris = [v for n, k, v in read(markup).attributes if (n, k) == ("img", "src")]
    assert len(uris) == len(pictures) == 4
    for uri, picture in zip(uris, pictures.values(), strict=True):
        shown = Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))).convert("RGB")
        assert np.abs(np.asarray(shown, int) - np.asarray(picture, int)).mean() < 6


def test_every_chart_has_a_title_and_a_description(markup):
    boxes = re.findall(
        r'<div class="chart" id="([\w-]+)" data-figure="figure-([\w-]+)" role="img" aria-label="(.*?)">', markup
    )
    assert len(boxes) == 8  # accuracy, cost, picks, three clusters, their sizes, one histogram of scores
    drawn = figures(markup)
    assert [a for a, _, _ in boxes] == [b for _, b, _ in boxes] == list(drawn)
    for name, _, label in boxes:
        title, _, description = html.unescape(label).partition(". ")
        assert html.unescape(drawn[name]["layout"]["title"]["text"]) == title
        assert re.search(r"\d", description)
    assert all("caption" in t for t in re.findall("<table>.*?</thead>", markup, re.DOTALL))


def test_an_empty_report_says_why_each_part_is_missing():
    data = ReportData(absent={"pictures": "The pictures were <b>lost</b>."})
    seen = read(page(data))
    text = " ".join(seen.text)
    assert "The pictures were <b>lost</b>." in text
    assert [why in text for name, _, _, why in SECTIONS if name != "pictures"] == [True] * (len(SECTIONS) - 1)


def test_intervals_and_differences_are_those_of_the_statistics():
    rows = {(r.selector, r.budget): r for r in headline(full_data_trials())}
    less = rows["less", "10%"]
    assert less.accuracy.estimate == pytest.approx(0.55)
    assert less.accuracy.low < 0.55 < less.accuracy.high
    assert less.against_random.difference.estimate == pytest.approx(0.15)
    # 60 more right, none lost: McNemar's exact p is 2 · 2⁻⁶⁰
    assert less.against_random.p == pytest.approx(2 * 0.5**60)
    assert rows["full", "100%"].against_random is None
    assert [r.selector for r in headline(full_data_trials())] == ["random", "less", "full"]


def full_data_trials():
    return [
        trial("full", "100%", 14000, 0.75),
        trial("less", "10%", 1400, 0.55),
        trial("random", "10%", 1400, 0.40),
    ]


def test_seeds_are_averaged_and_counted():
    trials = [trial("random", "10%", 1400, 0.4, seed=s, shift=100 * s) for s in range(2)]
    trials += [trial("less", "10%", 1400, 0.4 + 0.1 * s, seed=s) for s in range(2)]
    less = next(r for r in headline(trials) if r.selector == "less")
    assert (less.seeds, less.accuracy.estimate) == (2, pytest.approx(0.45))
    assert less.against_random.difference.estimate == pytest.approx(0.05)
    # differences of 0 and 10 points: t of one degree of freedom is 1
    assert less.against_random.p == pytest.approx(0.5)
    other = Trial("xmas", "10%", 0, 1, 1.0, answers("x", 0.5, n=10))
    with pytest.raises(InputError, match="in common"):
        headline([*trials, other])


def test_variants_of_the_fine_tune_stand_side_by_side():
    trials = [trial("random", "10%", 1400, 0.40), trial("less", "10%", 1400, 0.50)]
    # the first by name is the one to compare with, whatever comes first
    trials = [replace(t, variant="mores", evals=answers(f"m{t.selector}", 0.45)) for t in trials] + [
        replace(t, variant="connector") for t in trials
    ]
    rows = headline(trials)
    assert [r.name for r in rows] == [f"{s}, {v}" for s in ("random", "less") for v in ("connector", "mores")]
    beside = {r.name: r.against_first.difference.estimate for r in rows if r.against_first}
    assert beside == {"random, mores": pytest.approx(0.05), "less, mores": pytest.approx(-0.05)}
    against = {r.name: r.against_random.difference.estimate for r in rows if r.against_random}
    assert against == {"less, connector": pytest.approx(0.1), "less, mores": 0}
    data = ReportData(trials=trials)
    out = io.StringIO()
    Console(file=out, width=200).print(headline_table(data))
    for shown in (out.getvalue(), " ".join(read(page(data)).text)):
        assert all(r.name in shown for r in rows)
        assert "On the same rows, against connector: mores at random 10% (+5.0 [" in shown


def test_the_terminal_shows_the_same_table():
    data = ReportData(trials=full_data_trials(), majority=majority_baseline(answers("r", 0.1)))
    out = io.StringIO()
    Console(file=out, width=200).print(headline_table(data))
    shown = out.getvalue()
    assert "beats random" in shown
    assert "+15.0 [" in shown
    assert "commonest answer" in shown
    assert "75.0" in shown
    Console(file=io.StringIO()).print(headline_table(ReportData()))


def test_json_in_a_page_is_json_and_ends_no_script():
    odd = {"</script>": ["<!--", "&", "\u2028\u2029", "\ud800", float("nan"), -float("inf"), 1.5, None, True]}
    text = as_json(odd)
    assert not re.search("[<>&\u2028\u2029\ud800]", text)
    assert json.loads(text) == {"</script>": ["<!--", "&", "\u2028\u2029", "\ud800", None, None, 1.5, None, True]}


def test_a_template_s_gap_is_an_error():
    with pytest.raises(UndefinedError, match="note"):
        render("stages", table=Table("", [], [], set()))


def make_run(folder, pool, target, twin):
    """Lay out what a run leaves: pools, features, scores, picks, one stage, and the answers of two choices."""
    shutil.copytree(pool, folder / "pool")
    checkpoints = [CheckpointRef(1, twin), CheckpointRef(2, twin)]
    projected = FeatureConfig(kind="gradient", projection=ProjectionConfig(dim=64))
    for config in (projected, FeatureConfig(kind="trajectory")):
        run_inline(make_spec(pool, checkpoints, config, str(folder / "features")))
    run_inline(make_spec(target, checkpoints, projected, str(folder / "targets"), targets=True))
    weights = {1: 0.5, 2: 0.5}
    for name, needs in (
        ("random", Needs()),
        ("less", Needs(("gradient",), targets=True)),
        ("xmas", Needs(("trajectory",))),
    ):
        features = str(folder / "features") if needs.features else None
        targets = str(folder / "targets") if needs.features else None
        view = make_view(pool, features, targets, needs, weights)
        select(view, name, {"clusters": 3} if name == "xmas" else {}, ["10%", 20], 0, str(folder))
    tables = []
    for name, rows, share in (("random-10pct-s0", 6, 0.4), ("less-10pct-s0", 6, 0.6)):
        (folder / "sweep" / name).mkdir(parents=True)
        selector = name.split("-")[0]
        result = {
            "selector": selector,
            "budget": "10%",
            "seed": 0,
            "rows": rows,
            "train_seconds": 900.0,
            "eval_seconds": 360.0,
            "run": name,
        }
        (folder / "sweep" / name / "result.json").write_text(json.dumps(result))
        tables.append(answers(name, share))
    write_rows(folder / "evals.parquet", pa.concat_tables(tables), EVALS)
    sections = [{"name": "xmas", "config": {"clusters": 3}}, {"name": "less"}, {"name": "random"}]
    config = {"model": {"path": twin}, "selectors": sections, "actors": {"actors": 2}, "finetune": {"workers": 4}}
    config |= {"out": str(folder), "pool": {"source": "p"}, "target": {"source": "t"}, "test": {"source": "e"}}
    config |= {"features": [{"kind": "gradient"}, {"kind": "trajectory"}], "budgets": ["10%", 20]}
    (folder / "run.json").write_text(json.dumps({"digest": "0123456789abcdef", "version": "0.1.0", "config": config}))
    for name in ("features-gradient", "sweep"):
        with Manifest(str(folder), "0").stage(name, {}):
            pass
    with Manifest(str(folder), "0").stage("ingest-pool", {}) as record:
        record.facts.update(rows=60, bytes=1000)


def test_clusters_are_counted_by_source():
    class TwoSources:
        def ids(self):
            return np.array([9, 3, 5, 7], np.uint64)

        def column(self, name):
            return np.array({"source": ["vg", "coco", "vg", "coco"]}[name], object)

    counts = by_source(TwoSources(), np.array([3, 5, 9], np.uint64), np.array([1, 0, 1]), 3)
    assert {name: c.tolist() for name, c in counts.items()} == {"vg": [1, 1, 0], "coco": [0, 1, 0]}
    assert list(counts) == ["vg", "coco"]


def test_a_run_folder_is_gathered(tmp_path, tiny_pool, tiny_model, target_pool):
    empty = gather(str(tmp_path))
    assert (empty.trials, empty.picked, empty.stages, empty.refused) == ([], [], [], {})
    make_run(tmp_path, tiny_pool, target_pool, tiny_model)
    data = gather(str(tmp_path))
    assert [(t.selector, t.rows, t.evals.num_rows) for t in data.trials] == [
        ("less", 6, 400),
        ("random", 6, 400),
    ]
    assert sum(data.pool_tasks.values()) == 60
    assert {(p.selector, p.budget): sum(p.by_task.values()) for p in data.picked} == {
        (s, b): n for s in ("random", "less", "xmas") for b, n in (("10%", 6), ("20 rows", 20))
    }
    trajectories = data.trajectories
    assert trajectories.median_CT.shape == (3, 2)
    assert trajectories.sizes.sum() == 48
    assert (trajectories.low_CT <= trajectories.median_CT).all()
    assert (trajectories.median_CT <= trajectories.high_CT).all()
    assert 0 < trajectories.picked["20 rows"].sum() <= 20
    # by hand: the source of each row, its cluster from the scores
    pool, scores = Pool(tiny_pool), read_rows(tmp_path / "scores" / "xmas.parquet", SCORES).to_pylist()
    source_of = dict(zip(pool.ids().tolist(), pool.column("source"), strict=True))
    counted = Counter((source_of[r["sample_id"]], r["group"]) for r in scores if r["group"] >= 0)
    assert {(s, c): int(n) for s, by in trajectories.sources.items() for c, n in enumerate(by) if n} == counted
    (less,) = data.similarity
    assert len(less.scores_N) == 60
    assert (less.scores_N >= less.thresholds["10%"]).sum() == 6
    assert (less.scores_N >= less.thresholds["20 rows"]).sum() == 20
    galleries = {g.selector: g for g in data.galleries}
    assert {name: g.means for name, g in galleries.items()} == {"random": "chance", "less": "worth", "xmas": "order"}
    assert min(s.score for s in galleries["less"].picked) > max(s.score for s in galleries["less"].passed)
    for gallery in data.galleries:
        assert gallery.picked
        assert len(gallery.passed) == 8
        assert all(s.image is not None for s in gallery.picked + gallery.passed)
    # text-only rows have no gradient in the projector; every cluster of three has a row; both checkpoints are one model,
    # so that no trajectory moves
    counted = {name: (d.rows, d.zero_scores, d.zero_features) for name, d in data.diagnoses.items()}
    assert counted == {"random": (60, 0, None), "less": (60, 12, 12), "xmas": (60, 48, 0)}
    assert (data.diagnoses["xmas"].clusters, data.diagnoses["xmas"].empty_clusters) == (3, 0)
    assert data.facts["pool digest"] == Pool(tiny_pool).digest
    assert data.stages[0].rows == 60
    assert data.facts["model"] == tiny_model
    assert re.fullmatch(UTC, data.facts["last stage finished (UTC)"])
    # two trials: a quarter of an hour on four workers and six minutes of one actor each
    assert data.stages[-1].held == Held(0, pytest.approx(2.2))
    assert data.facts["CPU-hours"] == "2.20 (no GPU was used)"
    read(page(data))
    assert [name for name, _, show, _ in SECTIONS if show(data, headline(data.trials)) is None] == ["composition"]
