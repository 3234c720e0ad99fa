"""A plan of a run that has begun: what is there, what is left and at what price; and what the run would refuse."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from finished import finish, values_of
from foreign import vinnow
from pictures import make_records, write_records
from vinnow.evaluate.run import REPORT
from vinnow.pipelines.runs.config import resolve
from vinnow.pipelines.runs.ingest_stage import Ingest
from vinnow.pipelines.runs.plan import make_plan
from vinnow.pipelines.runs.plan_shown import summarise
from vinnow.pipelines.runs.run import run_stages
from vinnow.store.errors import InputError


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run of two seeds; nobody writes into it."""
    with pytest.MonkeyPatch.context() as patch:
        yield finish(tmp_path_factory.mktemp("left"), patch)


def test_pages_name_folders_that_a_run_leaves(done):
    root = Path(__file__).parents[2]
    text = "".join(page.read_text() for page in [root / "README.md", *root.glob("docs/*.md")])
    named = set(re.findall(r"runs/\w+/sweep/[\w-]+/([\w/.-]+)", text))
    assert named
    assert [path for path in named if not list(done.out.glob(f"sweep/*/{path}"))] == []


@pytest.fixture
def run(done, tmp_path):
    """A copy of its folder, as plain values."""
    shutil.copytree(done.out, tmp_path / "out")
    return json.loads(json.dumps(done.config)) | {"out": str(tmp_path / "out")}


def plan_of(values, *sets):
    config = resolve(json.loads(json.dumps(values)), list(sets))
    lines = make_plan(config)
    return {line.what.split(":")[0] if line.stage == "select" else line.stage: line for line in lines}, summarise(
        config, lines
    )


def hours(line):
    assert line.price is not None
    return line.price.hours


def every_file(folder):
    return {p: p.stat().st_mtime_ns for p in Path(folder).rglob("*")}


def test_a_finished_run_has_nothing_left(run):
    before = every_file(run["out"])
    lines, whole = plan_of(run)
    assert {line.state for line in lines.values()} == {"done"}
    assert (whole.left["total"], whole.left["questions"], whole.left["bytes"]) == (0, 0, 0)
    assert whole.total > 0 < whole.questions == 27
    assert every_file(run["out"]) == before


def test_a_grown_run_is_left_with_what_is_new(run):
    first = plan_of(run | {"out": run["out"] + "-new"}, "seeds=[0, 1]", "budgets=[20%, 40%]")[1]
    lines, whole = plan_of(run, "seeds=[0, 1]", "budgets=[20%, 40%]")
    assert first.left["total"] == first.total
    assert lines["proxy"].state == lines["features-gradient"].state == "done"
    assert (lines["random"].state, lines["random"].left) == ("1 of 4 picks", 0.75)
    assert (lines["sweep-less-20%"].state, lines["sweep-less-20%"].left) == ("1 of 2 trials", 0.5)
    assert lines["sweep-less-40%"].state == "to do"
    trials = [line for line in lines.values() if line.within == "sweep"]
    assert whole.left["total"] == pytest.approx(sum(hours(t) * (0.5 if t.stage.endswith("20%") else 1) for t in trials))
    assert (whole.questions, whole.left["questions"]) == (3 * 4 * 9, 3 * 3 * 9)


def test_what_was_cut_off_is_counted_by_its_parts_and_steps(run):
    out = run["out"]
    for name in ("features-gradient", "proxy", "sweep"):
        os.remove(f"{out}/stages/{name}.json")
    shutil.rmtree(max(Path(out, "features/gradient").glob("step=*")))
    os.remove(f"{out}/train/proxy/train.json")
    log = Path(f"{out}/train/proxy/log.jsonl")
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:2]))
    os.remove(f"{out}/sweep/less-20pct-s0/result.json")
    os.remove(f"{out}/sweep/less-20pct-s0/eval/{REPORT}")
    shutil.rmtree(f"{out}/sweep/xmas-20pct-s0")
    lines, whole = plan_of(run, "proxy.resume_steps=1")
    assert (lines["proxy"].state, lines["proxy"].left) == ("2 of 3 steps", pytest.approx(1 / 3))
    assert plan_of(run, "proxy.resume_steps=200")[0]["proxy"].left == 1  # no state was saved yet
    assert (lines["features-gradient"].state, lines["features-gradient"].left) == ("1 of 2 parts", 0.5)
    less, xmas, random = (lines[f"sweep-{n}-20%"] for n in ("less", "xmas", "random"))
    assert (random.state, less.state, xmas.state) == ("done", "to do", "to do")
    # trained, and its answers are there but for the table: nothing is priced any more
    assert (random.left, less.left, xmas.left) == (0, 0, 1)
    assert "1 of 1 trials are trained" in less.note
    assert (less.questions_left, xmas.questions_left) == (0, 9)
    assert whole.left["questions"] == 9


def longer(folder, more=5):
    records, pictures = make_records(9, seed=9)
    new, drawn = make_records(more, seed=77)
    new = [r | {"image": "more/" + r["image"]} if "image" in r else r for r in new]
    folder.mkdir()
    write_records(folder, records + new, pictures | {f"more/{n}": p for n, p in drawn.items()})
    return {"source": str(folder / "records.json"), "image_root": str(folder / "images")}


def test_a_longer_test_set_asks_only_what_is_new(run, tmp_path):
    before = every_file(run["out"])
    test = longer(tmp_path / "longer")
    lines, whole = plan_of(run | {"test": test, "budgets": ["20%", "40%"]})
    assert lines["ingest-test"].state == "9 of 14 questions"
    old, new = lines["sweep-random-20%"], lines["sweep-random-40%"]
    assert (old.questions, old.questions_left, old.left, old.done) == (14, 5, 0, False)
    assert (new.questions, new.questions_left, new.left) == (14, 14, 1)
    assert whole.left["questions"] == 3 * (5 + 14)
    assert whole.left["total"] == pytest.approx(sum(hours(lines[f"sweep-{n}-40%"]) for n in ("less", "xmas", "random")))
    assert every_file(run["out"]) == before
    said = vinnow("plan", _yaml(tmp_path, run | {"test": test}))
    assert said.code == 0
    assert "questions: 42 asked in all, 15 of them left" in said.text
    # one that lacks questions is refused as the run refuses it
    shorter = _yaml(tmp_path, run | {"test": run["pool"]})
    planned, ran = vinnow("plan", shorter), vinnow("run", shorter)
    assert planned.errors == ran.errors != []
    assert (planned.code, ran.code) == (2, 2)
    assert "the test set is another one" in planned.errors[0]


def _yaml(folder, values):
    (folder / "run.yaml").write_text(json.dumps(values))
    return folder / "run.yaml"


@pytest.mark.parametrize("entry", ["proxy.lr=0.5", "seed=3", "evaluate.max_new_tokens=3", "seeds=[]", "budgets=[]"])
def test_what_a_run_refuses_is_refused_by_its_plan_in_the_same_words(run, tmp_path, entry):
    file = _yaml(tmp_path, run)
    planned, ran = (vinnow(word, file, "--set", entry) for word in ("plan", "run"))
    assert planned.errors == ran.errors != []
    assert (planned.code, planned.trace, ran.code) == (2, "", 2)


@pytest.mark.parametrize("pool", ["pool", "test"])
def test_a_source_that_was_edited_in_its_place_is_refused_and_one_that_was_touched_is_told(run, capsys, pool):
    """The pool that is there was made of what the file held before."""
    source = Path(run[pool]["source"])
    was, times = source.read_text(), source.stat()
    config = resolve(json.loads(json.dumps(run)), [])
    try:
        source.write_text(was)
        os.utime(source, (times.st_atime, times.st_mtime + 100))
        run_stages(config, report=False)
        assert f"ingest-{pool}: {source} is as long as it was, but newer than the pool" in capsys.readouterr().err
        make_plan(config)
        records = json.loads(was)
        source.write_text(json.dumps([*records, records[0] | {"id": "one more"}]))
        said = []
        for do in (run_stages, make_plan):
            with pytest.raises(InputError) as refused:
                do(config)
            said.append(str(refused.value))
        assert said[0] == said[1]
        assert f"{source} was changed since {run['out']}/{pool} was made of it" in said[0]
        source.unlink()  # whoever has ingested may delete what it came from
        Ingest(config, pool).raise_edited()
    finally:
        source.write_text(was)
        os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_an_out_of_something_else_is_refused(run, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("x")
    file = _yaml(tmp_path, run | {"out": str(tmp_path / "other")})
    planned, ran = (vinnow(word, file) for word in ("plan", "run"))
    assert planned.errors == ran.errors != []
    assert "holds other files ('mine.txt')" in planned.errors[0]


@pytest.mark.parametrize("name", ["seeds", "budgets", "selectors"])
def test_an_empty_list_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=f"{name} is an empty list"):
        resolve(values_of(tmp_path) | {name: []})


def test_devices_that_are_missing_are_told_below_the_table(tmp_path):
    values = values_of(tmp_path)
    told = {
        "ray.num_cpus=2": ("features.0.rows_per_part=1", "actors.actors=5", "features gradient asks for 5 × (1 CPU)"),
        "ray.num_cpus=3": ("proxy.workers=4", "proxy.micro_batch=1", "training proxy asks for 4 × (1 CPU)"),
        "ray.num_cpus=1": (
            "finetune.workers=2",
            "finetune.micro_batch=4",
            "trial random-20pct-s0 asks for 2 × (1 CPU)",
        ),
    }
    for cpus, (*sets, words) in told.items():
        options = [o for s in (cpus, *sets) for o in ("--set", s)]
        said = vinnow("plan", _yaml(tmp_path, values), "--gpus", "0", "--json", *options)
        assert said.code == 2, said.text
        assert words in said.errors[0]
        assert "1 node with 0 GPUs" in said.errors[0]
        assert '"stage": "sweep-xmas-20%"' in said.text
        assert said.text.index("ingest-pool") < said.text.index("error:")
    assert vinnow("plan", _yaml(tmp_path, values), "--gpus", "0").code == 0
    gpu = vinnow("plan", _yaml(tmp_path, values), "--set", "proxy.use_gpu=true")
    assert (gpu.code, "asks for 1 × 1 GPU, and there is none here" in gpu.errors[0]) == (2, True)
