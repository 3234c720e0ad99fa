"""One method several times in a sweep, and several features of a kind: labels, and what a selector reads."""

import pytest
from pictures import make_records, write_records
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.stream import make_spec, run_inline
from vinnow.pipelines.report.gather import gather
from vinnow.pipelines.runs.config import resolve
from vinnow.pipelines.runs.opening import start
from vinnow.pipelines.runs.plan import make_plan
from vinnow.pipelines.runs.select_stage import pick
from vinnow.pipelines.runs.sweep import trials_of
from vinnow.pipelines.runs.sweeping.same import same_lines
from vinnow.pool.ingest import ingest
from vinnow.store.errors import InputError
from vinnow.store.tables import PICKS, read_rows

GRADIENT = {"kind": "gradient", "projection": {"dim": 32}, "max_len": 256}
LAYER = GRADIENT | {"name": "grad_l1", "which": r"re:language_model.*layers\.1\."}
PATH = {"kind": "trajectory", "max_len": 256}


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    source = write_records(folder, *make_records(60))
    (folder / "aim").mkdir()
    aim = write_records(folder / "aim", *make_records(9, seed=99))
    pool, target = {"source": source, "image_root": str(folder / "images")}, {"source": aim}
    target["image_root"] = str(folder / "aim" / "images")
    return {
        **{"out": str(folder / "run"), "pool": pool, "test": target, "target": target, "model": {"twin": {}}},
        **{"proxy": {"parts": ["projector"], "checkpoint_count": 2, "max_len": 256}, "budgets": ["20%"]},
        **{"finetune": {"parts": ["projector"], "max_len": 256}, "features": [GRADIENT, LAYER, PATH]},
        "selectors": [
            {"name": "random"},
            {"name": "less"},
            {"name": "less", "label": "less_l1", "reads": {"gradient": "grad_l1"}},
            {"name": "less", "label": "less_mean", "config": {"aggregate": "mean"}},
            {"name": "less", "label": "less_turns", "pick": "round_robin"},
            {"name": "xmas", "label": "xmas_2", "config": {"clusters": 2}},
            {"name": "xmas", "label": "xmas_3", "config": {"clusters": 3}},
        ],
    }


@pytest.mark.parametrize(
    ("selectors", "words"),
    [
        ([{"name": "less"}, {"name": "less"}], "selector 'less' is listed twice; give each a label"),
        ([{"name": "less", "label": "a"}, {"name": "random", "label": "A"}], "'a' is listed twice"),
        ([{"name": "less", "label": "random"}], "the label 'random' is another method's name"),
        ([{"name": "less", "label": "full"}], "'full' is what something else is called"),
        ([{"name": "less", "label": "less-s1"}], "'less-s1' is what something else is called"),
        ([{"name": "less", "label": "a/b"}], "part of a path"),
        ([{"name": "less", "reads": {"gradient": "../x"}}], "part of a path"),
        ([{"name": "less", "reads": {"gradient": "grad_l2"}}], "needs 'gradient' features (by the name 'grad_l2')"),
        ([{"name": "less", "reads": {"gradient": "trajectory"}}], "'trajectory' is of kind 'trajectory'"),
        ([{"name": "less", "reads": {"grad": "grad_l1"}}], "needs no 'grad' features; did you mean 'gradient'"),
        ([{"name": "less", "read": {}}], "unknown field 'selectors.0.read'; did you mean 'reads'"),
        ([{"name": "less", "pick": []}], "selectors.0.pick is an empty list"),
        ([{"name": "less", "pick": "tops"}], "unknown pick rule 'tops'; did you mean 'top'"),
        ([{"name": "less", "pick": ["votes", "votes"]}], "'less-votes' is listed twice; give each a label"),
        ([{"name": "less", "pick": {"rule": "votes", "config": {"shar": 1}}}], "selectors.0.pick.config.shar"),
        ([{"name": "random", "pick": ["own", "round_robin"]}], "'random' has one score a row"),
    ],
)
def test_labels_and_reads_that_do_not_fit_are_refused(values, selectors, words):
    with pytest.raises(InputError) as caught:
        resolve(values | {"selectors": selectors})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": [0, 1, 0]}, "names a seed twice"),
        ({"seeds": [-1]}, "seeds.0: Input should be greater than or equal to 0"),
        ({"seeds": [True]}, "seeds.0: Input should be a valid integer"),
        ({"seed": 2**32}, "seed: Input should be less than"),
        ({"out": "s3:/bucket/run"}, "neither a folder nor a URI, which has two slashes"),
    ],
)
def test_seeds_and_places_that_would_mean_something_else_are_refused(values, change, words):
    with pytest.raises(InputError) as caught:
        resolve(values | change)
    assert words in str(caught.value)
    assert resolve(values | {"out": "file:///there/run"}).out == "/there/run"


def test_a_feature_of_another_name_is_offered(values):
    with pytest.raises(InputError, match=r"makes \['grad_l1'\]. Say which with `reads: {gradient: grad_l1}`"):
        resolve(values | {"features": [LAYER], "selectors": [{"name": "less"}]})
    without = values | {"proxy": None, "features": [LAYER]}
    with pytest.raises(InputError, match="goes by grad_l1 features at a proxy's checkpoints"):
        resolve(without | {"selectors": [{"name": "less", "reads": {"gradient": "grad_l1"}}]})


def test_usual_labels_are_not_told_of(values):
    usual = {"name": "less", "label": "less", "reads": {}}
    plain, told = (resolve(values | {"selectors": [s]}) for s in ({"name": "less"}, usual))
    assert plain.digest() == told.digest()
    assert repr(told.selectors) == "[SelectorSection(name='less', config={})]"
    other = resolve(values | {"selectors": [usual | {"label": "x"}]})
    assert other.digest() != plain.digest()
    assert repr(other.selectors) == "[SelectorSection(name='less', config={}, label='x')]"


def test_a_list_of_pick_rules_is_a_selector_for_each(values):
    rules = ["own", "round_robin", {"rule": "votes", "config": {"share": 0.1}, "label": "few"}, {"rule": "balanced"}]
    run = resolve(values | {"selectors": [{"name": "less", "config": {"targets": ["color"]}, "pick": rules}]})
    written = [
        {"name": "less", "config": {"targets": ["color"]}} | more
        for more in (
            {},
            {"label": "less-round_robin", "pick": {"rule": "round_robin"}},
            {"label": "few", "pick": {"rule": "votes", "config": {"share": 0.1}}},
            {"label": "less-balanced", "pick": {"rule": "balanced"}},
        )
    ]
    assert run.selectors == resolve(values | {"selectors": written}).selectors
    assert resolve(run.model_dump()).digest() == run.digest()  # what was saved is read again as it is
    alone, own = (resolve(values | {"selectors": [{"name": "less"} | more]}) for more in ({}, {"pick": ["own"]}))
    assert alone.digest() == own.digest()
    assert alone.digest() != resolve(values | {"selectors": [{"name": "less", "pick": "top"}]}).digest()


def test_a_sweep_holds_one_method_several_times(values, tiny_model):
    config = resolve(values)
    assert [p.what.split(":")[0] for p in make_plan(config) if p.stage == "select"] == [
        s.label for s in config.selectors
    ]
    run = start(config)
    for name in ("pool", "target", "test"):
        ingest(getattr(config, name), run.folder(name))
    checkpoints = [CheckpointRef(1, tiny_model), CheckpointRef(2, tiny_model)]
    for feature in config.features:
        run_inline(make_spec(run.folder("pool"), checkpoints, feature, run.folder("features")))
    for feature in config.features[:2]:
        run_inline(make_spec(run.folder("target"), checkpoints, feature, run.folder("targets"), targets=True))
    picks = pick(run, None)
    labels = [s.label for s in config.selectors]
    assert sorted(name for name, *_ in picks) == sorted(labels)
    tables = {name: read_rows(path, PICKS) for (name, *_), path in picks.items()}
    assert all(t["selector"].unique().to_pylist() == [name] for name, t in tables.items())
    taken = {name: frozenset(t["sample_id"].to_pylist()) for name, t in tables.items()}
    assert len({taken["less"], taken["less_l1"], taken["less_mean"]}) > 1
    trials = trials_of(config, picks, tiny_model)
    assert {t.name for t in trials} == {f"{n}-20pct-s0" for n in labels} | {"full-100pct-s0"}
    again = {("less_again", "20%", 0): picks[("less", "20%", 0)]}  # the same rows, by another name
    more = {t.name: t for t in trials_of(config, picks | again, tiny_model)}
    assert len({t.evaluate.run for t in more.values()}) == len(more) == len(trials) + 1
    assert [more[t.name] for t in trials] == trials
    assert [line.split(",")[0] for line in same_lines(list(more.values()))] == [
        "less_again-20pct-s0 is less-20pct-s0 again"
    ]
    assert pick(run, None) == picks
    gathered = gather(config.out)
    assert {p.selector for p in gathered.picked} == set(labels)
    assert {s.selector for s in gathered.similarity} == {"less", "less_l1", "less_mean"}
    assert "less_turns" in gathered.diagnoses
    assert gathered.trajectories is not None
    assert "Its clusters are not drawn" in "".join(gathered.notes.values())


def test_commands_take_names_too(values, tiny_model, tmp_path):
    """`vinnow features --name`, `vinnow select --label --reads`."""
    from typer.testing import CliRunner
    from vinnow.pipelines.cli.main import app

    pool, target = (str(tmp_path / n) for n in ("pool", "target"))
    config = resolve(values)
    ingest(config.pool, pool)
    ingest(config.target, target)
    named = FeatureConfig.parse(LAYER)
    for folder, aims in ((pool, False), (target, True)):
        out = str(tmp_path / ("targets" if aims else "features"))
        run_inline(make_spec(folder, [CheckpointRef(1, tiny_model)], named, out, targets=aims))
    line = (
        f"select --pool {pool} --features {tmp_path}/features --targets {tmp_path}/targets --selector less --budget 9"
    )
    for more, words in (
        ("--reads gradient=grad_l1 --label mine", None),
        ("--reads gradient=grad_l1 --label ours --rule votes --set pick.share=0.1", None),
        ("--reads gradient=grad_l1 --rule round_robin", None),
        ("--reads gradient=grad_l1 --set pick.share=0.1", "name it with --rule"),
        ("", "no 'gradient' features"),
        ("--reads gradient", "--reads NEED=NAME"),
        ("--reads loss=grad_l1", "needs no 'loss' features"),
    ):
        done = CliRunner().invoke(app, [*line.split(), "--out", str(tmp_path / "out"), *more.split()])
        assert (done.exit_code == 0) == (words is None), done.output
        assert words is None or words in str(done.exception)
    assert (tmp_path / "out" / "picks" / "mine-9.parquet").exists()
    # what a rule picked stands beside what the method itself did, under a name of its own
    assert (tmp_path / "out" / "picks" / "less-round_robin-9.parquet").exists()
    assert not (tmp_path / "out" / "picks" / "less-9.parquet").exists()
