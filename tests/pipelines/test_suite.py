"""`vinnow evaluate --suite`: ten benchmarks from one folder of folders, one model, one table."""

import json
import pickle
import shutil

import numpy as np
import official_files
import pytest
from endpoint import completion, serving
from judged_bench import judging
from typer.testing import CliRunner
from vinnow.actors.ray_worker import Attempts, ray_worker
from vinnow.evaluate import suite_run
from vinnow.evaluate.official import prepare
from vinnow.evaluate.shards import shards_left
from vinnow.evaluate.stepper import Stepper
from vinnow.evaluate.suite_table import figure_of
from vinnow.evaluate.suites import LLAVA10, SUITES
from vinnow.models.check import checked_digest
from vinnow.pipelines.cli.main import app
from vinnow.pipelines.suite import SuiteAsked, evaluate_suite
from vinnow.store.errors import InputError

FOLDERS = [m.folder for m in LLAVA10]


def vinnow(*arguments):
    """Run the command in this process; its errors are raised."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folders of all ten."""
    folder = tmp_path_factory.mktemp("suite")
    for name in ("gqa", "scienceqa", "textvqa", "pope", "mme", "mmbench", "llava_bench"):
        getattr(official_files, name)(folder / name)
    official_files.vqav2_test(folder / "vqav2")
    official_files.vizwiz(folder / "vizwiz", hidden=False)
    official_files.mmbench(folder / "mmbench_cn", "mmbench_dev_cn_20231003.tsv")
    return folder


def asked(model, root, out, **more):
    """Evaluate a suite by a checkpoint in this process."""
    values = {"model": model, "run": checked_digest(model), "max_new_tokens": 2, "max_refused": 0.5}
    return evaluate_suite(SuiteAsked("llava10", str(root), str(out), digest=values["run"], here=True, **more), values)


def test_the_lists_are_those_of_the_papers():
    titles = ["VQAv2", "GQA", "VizWiz", "SQA-I", "TextVQA", "POPE", "MME", "MMBench", "MMBench-CN", "LLaVA-W"]
    assert [m.title for m in SUITES["llava10"]] == [m.title for m in SUITES["icons"]] == titles


def test_ten_benchmarks_and_one_load(root, tiny_model, tmp_path, monkeypatch):
    loads, load = [], suite_run.loaded_generator
    monkeypatch.setattr(suite_run, "loaded_generator", lambda spec: loads.append(spec) or load(spec))
    report = asked(tiny_model, root, tmp_path / "out")
    assert len(loads) == 1
    assert [f.benchmark for f in report.figures] == FOLDERS
    figures = {f.benchmark: f for f in report.figures}
    assert {n: f.questions for n, f in figures.items()} == dict(
        zip(FOLDERS, (1, 2, 2, 3, 2, 12, 28, 5, 5, 6), strict=True)
    )
    assert [n for n, f in figures.items() if f.value is None] == ["vqav2", "llava_bench"]
    assert figures["mme"].metric == "perception"
    assert any("submission.json" in note for note in figures["vqav2"].notes)
    assert (
        figures["llava_bench"].notes[0].startswith(f"not judged yet: vinnow judge {tmp_path}/out/llava_bench/answers")
    )
    assert json.loads((tmp_path / "out/suite.json").read_text())["members"] == 10
    assert all((tmp_path / "out" / n / "pool/pool.json").is_file() for n in FOLDERS)
    # again: nothing is asked, and the model is not loaded
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.parquet")}
    assert asked(tiny_model, root, tmp_path / "out").plain() == report.plain()
    assert len(loads) == 1
    assert {p: p.stat().st_mtime_ns for p in before} == before
    # a benchmark that was cut off is asked what it lacks; the others are left as they are
    (tmp_path / "out/pope/evals.json").unlink()
    next((tmp_path / "out/pope/answers").iterdir()).unlink()
    assert asked(tiny_model, root, tmp_path / "out").plain() == report.plain()
    assert len(loads) == 2
    changed = {p.relative_to(tmp_path / "out").parts[0] for p in before if p.stat().st_mtime_ns != before[p]}
    assert changed == {"pope"}


def test_a_benchmark_that_fails_does_not_take_the_others_along(root, tiny_model, tmp_path):
    for name in ("pope", "gqa", "mmbench_cn"):
        shutil.copytree(root / name, tmp_path / "root" / name)
    for picture in list((tmp_path / "root/pope/val2014").iterdir())[1:]:
        picture.unlink()
    with pytest.raises(InputError, match=r"^pope: .*image_missing 9"):
        asked(tiny_model, tmp_path / "root", tmp_path / "out", allow_missing=True)
    assert (tmp_path / "out/mmbench_cn/evals.json").is_file()
    assert not (tmp_path / "out/pope/evals.json").exists()
    shutil.copytree(root / "pope/val2014", tmp_path / "root/pope/val2014", dirs_exist_ok=True)
    report = asked(tiny_model, tmp_path / "root", tmp_path / "out", allow_missing=True)
    assert next(f for f in report.figures if f.benchmark == "pope").refused == 0
    assert (len(report.missing), report.members) == (7, 10)


def saying(say):
    def answer(handler, body):
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        handler.send(200, json.dumps(completion(say(text))).encode())

    return answer


def knows(text):
    """Answer rightly of GQA's colour, and of MME's and GQA's yes."""
    return "red" if "color" in text else "no" if "Is it no" in text else "yes"


def some_of(root, folder):
    """Link the folders of five of the ten."""
    folder.mkdir()
    for name in ("vqav2", "vizwiz", "gqa", "mme", "llava_bench"):
        (folder / name).symlink_to(root / name)
    return folder


def test_the_command_by_a_server_with_a_judge_and_a_reference(root, tmp_path):
    few, out, full = some_of(root, tmp_path / "few"), tmp_path / "out", tmp_path / "full"
    words = ("evaluate", "--suite", "llava10", "--files", few, "--allow-missing")
    for folder, say in ((full, knows), (out, lambda text: "yes")):
        with serving(default=saying(say)) as server:
            who = ("--engine", "openai", "--base-url", server.url, "--api-model", "m")
            told = vinnow(*words, *who, "--out", folder)
    assert "LLaVA-W: not judged yet" in told
    assert "5 of 10 benchmarks are missing: scienceqa, textvqa, pope, mmbench, mmbench_cn" in told
    for folder, score, name in ((out, "6", "gpt"), (full, "8", "gpt")):
        marks = judging(lambda a, b, s=score: f"8 {s}" if "reference" in a else f"{s} 8")
        with serving(default=marks) as judge:
            by = ("--files", root / "llava_bench", "--base-url", judge.url, "--api-model", name)
            vinnow("judge", folder / "llava_bench/answers.jsonl", *by, "--out", folder / "llava_bench/judged")
    # all is answered: nobody listens any more
    told = vinnow(*words, *who, "--out", out, "--reference", full)
    saved = json.loads((out / "suite.json").read_text())
    figures = {f["benchmark"]: f for f in saved["figures"]}
    # "yes" to all: of GQA's two one is right; MME: acc 1/2 and acc+ 0 in ten categories; the judge: 6 of 8
    assert [figures[n]["value"] for n in ("vqav2", "vizwiz", "gqa", "mme", "llava_bench")] == [None, 0, 50, 500, 75]
    # of the reference, which has 100, 10 x 200 and 100
    assert [figures[n]["relative"] for n in ("gqa", "mme", "llava_bench")] == [50, 25, 75]
    assert (saved["average"], saved["averaged"], saved["members"]) == (50, 3, 10)
    assert "average relative performance 50.0 %, over 3 of 10 benchmarks" in told
    assert saved["without"] == {
        "vqav2": "there is no figure of this model and of the reference",
        "vizwiz": "the reference's figure is 0",
        **dict.fromkeys(saved["missing"], "its files are missing"),
    }
    # row by row: the hidden test set and the judged answers are no rows with scores
    rows = json.loads(vinnow("compare", full, out, "--json"))
    assert [r["benchmark"] for r in rows] == [*("gqa", "mme", "vizwiz"), *("gqa", "mme", "vizwiz")]
    assert rows[0]["notes"][-1] == "The answers to vqav2 are hidden: not compared."
    # other answers than those that were judged
    (out / "llava_bench/answers.jsonl").write_text("")
    assert figure_of(LLAVA10[-1], str(out / "llava_bench")).value is None
    # another judge's figures are no figures to compare with
    judged = full / "llava_bench/judged/judged.json"
    judged.write_text(judged.read_text().replace('"judge": "gpt"', '"judge": "other"'))
    assert "judged otherwise (judge differ)" in vinnow(*words, *who, "--out", out, "--reference", full)


def test_what_does_not_go_together(root, tiny_model, tmp_path):
    few = some_of(root, tmp_path / "few")
    base = ("evaluate", "--model", tiny_model, "--out", tmp_path / "out", "--gpus", "0")
    for more, words in (
        (("--suite", "lava10", "--files", few), "unknown suite 'lava10'. Did you mean|did you mean"),
        (("--suite", "icons", "--files", few), "lacks 5 of the 10 folders of icons: scienceqa, textvqa, pope, mmbench"),
        (("--suite", "icons", "--files", tmp_path / "few/gqa", "--allow-missing"), "none of the folders"),
        (("--suite", "icons"), "wants --files ROOT"),
        (("--suite", "icons", "--files", few, "--benchmark", "pope", "--images", few), "--images, --benchmark: with"),
        (("--suite", "icons", "--files", few, "--set", "image_root=x"), "--set image_root: with --suite"),
        (("--files", few, "--allow-missing"), "go with --suite"),
    ):
        with pytest.raises(InputError, match=words):
            vinnow(*base, *more)
    assert not (tmp_path / "out").exists()


def test_a_reference_that_was_asked_other_questions(root, tiny_model, tmp_path):
    shutil.copytree(some_of(root, tmp_path / "few"), tmp_path / "other")
    asked(tiny_model, tmp_path / "few", tmp_path / "full", allow_missing=True)
    file = tmp_path / "other/gqa/testdev_balanced_questions.json"
    file.write_text(file.read_text().replace("a dog", "a cat"))
    with pytest.raises(InputError, match="gqa: the reference was asked other questions"):
        asked(tiny_model, tmp_path / "other", tmp_path / "b", allow_missing=True, reference=str(tmp_path / "full"))
    assert not (tmp_path / "b/mme/answers").exists()


def test_a_cache_is_no_larger_than_one_benchmark_wants(root, tiny_model, tmp_path):
    jobs = []
    for name, most in (("gqa", 2), ("pope", 300)):
        ready = prepare(name, str(root / name), None, str(tmp_path / name))
        values = {"model": tiny_model, "run": "r", "benchmark": name, "pool": ready.pool, "max_new_tokens": most}
        jobs.append(suite_run.make_job(name, values | {"max_rows": 2}, ready.out, True, checked_digest(tiny_model)))
    actor = suite_run.SuiteActor(jobs)
    generator = actor.answerers["gqa"].generator
    # as on a GPU
    generator.stepper = actor.stepper = Stepper(generator.model, generator.family, generator.pad_id, generator.ends)
    lengths = []
    for name in ("pope", "gqa"):
        job = next(j for j in jobs if j.name == name)
        for shard in shards_left(job.spec, job.measurement.actor)[1]:
            actor({"part": f"{name}.{shard}", "name": name, "shard": shard})
        lengths.append(generator.stepper.cache.length)
    assert lengths[1] < lengths[0]


def test_an_actor_of_ray_takes_parts_of_all(root, tiny_model, tmp_path):
    jobs = []
    for name in ("gqa", "llava_bench"):
        benchmark = "open" if name == "llava_bench" else name
        ready = prepare(benchmark, str(root / name), None, str(tmp_path / name))
        values = {"model": tiny_model, "run": "r", "benchmark": benchmark, "pool": ready.pool, "max_new_tokens": 2}
        jobs.append(suite_run.make_job(name, values, ready.out, False, checked_digest(tiny_model)))
    worker = ray_worker(suite_run.SuiteActor, Attempts(str(tmp_path), "suite", 3))(
        jobs=pickle.loads(pickle.dumps(jobs))  # noqa: S301
    )
    (shard,) = shards_left(jobs[1].spec, jobs[1].measurement.actor)[1]
    part = {"part": f"llava_bench.{shard}", "place": "all", "name": "llava_bench", "shard": shard}
    done = worker({k: np.array([v]) for k, v in part.items()})
    assert {k: v.tolist() for k, v in done.items()} == {
        **{"part": [part["part"]], "name": ["llava_bench"], "rows": [6], "refused": [0], "died": [0]}
    }
    assert shards_left(jobs[1].spec, jobs[1].measurement.actor)[1] == []
    assert len(shards_left(jobs[0].spec, jobs[0].measurement.actor)[1]) == 1
