"""What a report says of its run: when, on what model, at what price, by which config and command."""

import shlex

import pytest
from reports import HOSTILE, full_data, unbundled
from vinnow.pipelines.report.about import about, run_facts
from vinnow.pipelines.report.build import page
from vinnow.pipelines.report.data import ReportData, Stage
from vinnow.pipelines.report.hours import Held
from vinnow.pipelines.report.hours import held as held_of
from vinnow.pipelines.runs.config import RunConfig, load_run, read_yaml, resolve
from vinnow.pipelines.runs.opening import start
from vinnow.pipelines.runs.stages import stages_of
from vinnow.store.manifest import StageRecord

TRAIN = {"workers": 4, "use_gpu": True}
CONFIG = {
    "model": {"path": "/models/llava"},
    "warmup": [
        {"name": "stage1", "train": {"workers": 8, "use_gpu": True}},
        {"name": "cpu", "train": {"workers": 3, "global_batch": 96}},
    ],
    "proxy": {"use_gpu": True},
    "actors": {"actors": 6, "gpus_per_actor": 0.5, "cpus_per_actor": 2, "loaders": 5},
    "finetune": {"variants": {"small": TRAIN, "large": TRAIN | {"workers": 8}}},
    "evaluate": {"actors": 2, "gpus_per_actor": 1},
}
RUN = {"config": CONFIG, "digest": "0" * 16, "version": "0.1.0"}


BESIDE = {"out": "o", "pool": {"source": "p"}, "test": {"source": "t"}, "selectors": [], "budgets": []}


def held(config, record, results):
    """What a run of this config held."""
    tree = BESIDE | {"model": {"path": "m"}, "features": [{"kind": "loss"}]} | config
    return held_of(stages_of(RunConfig.parse(tree)), record, results)


def of(name, seconds=3600.0, finished=""):
    return StageRecord(name, "", {}, seconds=seconds, finished=finished)


def test_a_stage_s_hours_are_its_seconds_times_its_devices():
    trials = [
        {"variant": "small", "train_seconds": 1800, "eval_seconds": 360},
        {"variant": "large", "train_seconds": 3600},
    ]
    held_by_stage = {
        n: held(CONFIG, of(n), trials) for n in ("warmup-stage1", "warmup-cpu", "proxy", "features-loss", "sweep")
    }
    assert held_by_stage == {
        "warmup-stage1": Held(8, 8),
        "warmup-cpu": Held(0, 3),
        "proxy": Held(1, 1),  # one worker where the config does not say
        "features-loss": Held(3, 17),
        "sweep": Held(pytest.approx(4 * 0.5 + 2 * 0.1 + 8), pytest.approx(10.2)),
    }
    assert held(CONFIG, of("proxy", 90.0), []) == Held(0.025, 0.025)
    assert held(CONFIG, of("ingest-pool"), []) is None
    assert held({"finetune": {}}, of("sweep"), [{"train_seconds": 3600}]) == Held(0, 1)


def test_the_header_says_when_on_what_and_at_what_price():
    records = [of("proxy", finished="2026-01-02T03:04:05Z"), of("twin", finished="2026-01-02T03:04:01Z"), of("old")]
    stages = [Stage("a", 1.0, held=Held(2.0, 9.0)), Stage("b", 1.0, held=Held(0.0, 0.001)), Stage("c", 1.0)]
    facts = run_facts(RUN, records, stages)
    assert facts["last stage finished (UTC)"] == "2026-01-02T03:04:05Z"
    assert facts["model"] == "/models/llava"
    # the cores beside a GPU are not its price
    assert (facts["GPU-hours"], facts["CPU-hours"]) == ("2.00", "< 0.01 (stages without a GPU)")
    alone = run_facts(RUN, [], stages[1:])
    assert "GPU-hours" not in alone
    assert alone["CPU-hours"] == "< 0.01 (no GPU was used)"
    assert "last stage finished (UTC)" not in alone
    twin = {"config": {"model": {"path": None, "twin": {"llm": "qwen2", "layers": 3, "hidden": 96}}}}
    assert "qwen2, 3 layers of 96" in run_facts(RUN | twin, [], [])["model"]
    header = page(ReportData(facts=facts)).split("<nav")[0]
    assert all(word in header for word in ("2026-01-02T03:04:05Z", "/models/llava", "GPU-hours", "2.00"))


def test_the_page_holds_the_config_and_the_command(tmp_path):
    data = full_data(tmp_path)
    data.about = about("runs/it's mine", {"config": {"proxy": {"lr": 1e-5}, "odd": [float("nan"), HOSTILE]}})
    section = page(data).split('<section id="about">')[1].split("</section>")[0]
    folded = section.split("<details>")[1]
    assert "lr: 1.0e-05" in folded
    assert "alert(1)" in folded
    assert "<script" not in section
    assert "- .nan" in folded
    assert "NaN" not in unbundled(page(data))
    commands = [shlex.split(c) for c in data.about.commands.values()]
    assert commands[0] == ["vinnow", "run", "runs/it's mine/run.json", "--set", "out=runs/it's mine-again"]
    assert commands[1] == ["vinnow", "report", "runs/it's mine"]
    assert [f"{h}-hours" in page(data).split('id="stages"')[1] for h in ("GPU", "CPU")] == [True, True]


def test_the_command_makes_the_same_run(tmp_path):
    values = {k: v for k, v in read_yaml("demo").items() if k != "data"}
    for name in ("pool", "captions", "target", "test"):
        values[name] = values[name] | {"source": "x.json"}
    run = start(resolve(values | {"out": str(tmp_path / "run")}))
    command = shlex.split(next(iter(about(run.out, {"config": {}}).commands.values())))
    again = load_run(command[2], command[4:])
    assert again.out == f"{run.out}-again"
    assert again.digest() == run.config.digest()
    # and in its own folder it is the run that is there
    assert start(load_run(command[2])).config == run.config
