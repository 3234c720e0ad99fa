"""What is seen of a real run: a real Prometheus answers each query of the board, and trackers have trials by choice.

One small run (features, two trials, TensorBoard, MLflow, W&B offline) serves all tests.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import prometheus
import pytest
from commands import vinnow_line
from finished import STEP, values_of
from offline_runs import kept_runs
from vinnow.pipelines.dashboards import panels
from vinnow.store.files import read_json

# labels that may have no value, which Prometheus then leaves out
MAY_BE_EMPTY = ("variant",)
TRIALS = {"random-40pct-s0": "random", "perplexity_middle-40pct-s0": "perplexity_middle"}


class Watched:
    """A finished run, what it said, and the Prometheus that saw it."""

    def __init__(self, out: Path, address: str, begin: float, said: str):
        self.out, self.address, self.begin, self.said = out, address, begin, said

    def series(self, expr: str):
        return prometheus.series(self.address, panels.filled(expr, window="10s"), self.begin)


def written(folder: Path, held_out: str) -> Path:
    """Write the run's YAML: one row of its pool has no picture."""
    values = values_of(folder) | {"features": [{"kind": "loss", "rows_per_part": 10}], "budgets": ["40%"]}
    del values["proxy"], values["target"]
    source = Path(values["pool"]["source"])
    rows = json.loads(source.read_text())
    source.write_text(json.dumps([*rows, rows[0] | {"id": "lost", "image": "none.png"}]))
    values["pool"] |= {"max_refused": 0.5}
    values |= {"selectors": [{"name": n} for n in TRIALS.values()], "ray": {"num_cpus": 2, "object_store_mb": 100}}
    values["ray"]["fork"] = True  # what is counted comes from workers that are forks
    step = STEP | {"global_batch": 4, "micro_batch": 4, "max_steps": 8, "max_len": 256}
    values["finetune"] = step | {"validation": {"pool": held_out, "steps": 4}}
    values["sweep"] = {"full": False, "trackers": ["mlflow", "wandb"]}
    (folder / "run.yaml").write_text(json.dumps(values))
    return folder / "run.yaml"


@pytest.fixture(scope="module")
def watched(tmp_path_factory, target_pool):
    for package in ("mlflow", "wandb"):
        pytest.importorskip(package)
    prometheus.binary()
    folder = tmp_path_factory.mktemp("watched")
    yaml, ray_tmp = written(folder, target_pool), Path(tempfile.mkdtemp(prefix="vn-"))  # short: sockets lie in it
    own = {"RAY_TMPDIR": str(ray_tmp), "WANDB_MODE": "offline", "RAY_AUTH_MODE": "disabled", **prometheus.OFTEN}
    with prometheus.started(folder / "prometheus", ray_tmp) as address:
        begin = time.time()
        done = subprocess.run(
            vinnow_line("run", yaml), env=os.environ | own, capture_output=True, text=True, timeout=280, cwd=folder
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert "gets no more of this sweep" not in done.stderr
        yield Watched(folder / "out", address, begin, done.stderr)
    shutil.rmtree(ray_tmp, ignore_errors=True)


def every_query():
    return [(panel, query) for row in panels.ROWS for panel in row.panels for query in panel.queries]


@pytest.mark.slow
def test_prometheus_answers_every_query_of_the_board(watched):
    answers = {f"{p.title}: {q.expr}": watched.series(q.expr) for p, q in every_query() if not p.needs}
    assert [query for query, lines in answers.items() if not lines] == []
    for panel, query in every_query():
        lines, named = answers.get(f"{panel.title}: {query.expr}", []), set(re.findall(r"{{(\w+)}}", query.legend))
        assert all(named <= {*labels, *MAY_BE_EMPTY} for labels, _ in lines), query.legend
    empty = [p.title for p, _ in every_query() if p.needs]
    assert empty == ["GPUs at work"]  # Ray's own; here there is none
    by_title = {query.split(": ")[0]: lines for query, lines in answers.items()}
    assert {labels["kind"] for labels, _ in by_title["Rows"]} == {"loss"}
    assert {labels["flow"] for labels, _ in by_title["Actors at work"]} >= {"loss", "answers"}
    assert all(0 <= v <= 1 for _, values in by_title["Actors at work"] for v in values if v == v)


@pytest.mark.slow
def test_prometheus_has_the_run_s_own_numbers(watched):
    def last(expr):
        # counters begin next to 0
        return {tuple(sorted(labels.items())): round(values[-1], 6) for labels, values in watched.series(expr)}

    # a process that ends at once may take its last half second along: counters hold no more than there was
    rows = last("max by (kind) (max_over_time(ray_vinnow_feature_rows_total[1h]))")
    assert rows.keys() == {(("kind", "loss"),)}
    assert 0 < rows[(("kind", "loss"),)] <= 30
    refused = "sum by (stage, reason) (max_over_time(ray_vinnow_refused_rows_total[1h]))"
    assert last(refused)[("reason", "image_missing"), ("stage", "ingest")] == 1
    assert 0 < last("sum(max_over_time(ray_vinnow_train_steps_total[1h]))")[()] <= 16
    assert 0 < last("sum(max_over_time(ray_vinnow_evaluation_questions_total[1h]))")[()] <= 18
    parts = last('max by (flow, state) (max_over_time(ray_vinnow_parts{flow="loss"}[1h]))')
    assert parts.keys() == {(("flow", "loss"), ("state", state)) for state in ("done", "waiting")}
    assert 0 < parts[("flow", "loss"), ("state", "done")] <= 3
    assert 0 <= parts[("flow", "loss"), ("state", "waiting")] <= 3
    assert last('max(max_over_time(ray_vinnow_sweep_trials{state="done"}[1h]))') == {(): 2}
    reached = {
        dict(labels)["selector"]: value
        for labels, value in last(
            "max by (selector, budget, seed) (max_over_time(ray_vinnow_trial_accuracy_ratio[1h]))"
        ).items()
    }
    results = {read_json(watched.out / "sweep" / name / "result.json")["selector"]: name for name in TRIALS}
    assert reached == {
        selector: round(read_json(watched.out / "sweep" / name / "result.json")["accuracy"], 6)
        for selector, name in results.items()
    }
    labels = {m["__name__"]: m for m, _ in watched.series('{__name__=~"ray_vinnow_.+"}')}
    assert not {"trial", "part"} & {label for m in labels.values() for label in m}


# ---- trackers --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_tensorboard_has_a_trial_s_curve_and_its_result_by_choice(watched):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for name, selector in TRIALS.items():
        events = EventAccumulator(str(watched.out / "sweep" / name / "tensorboard"))
        events.Reload()
        log = [json.loads(line) for line in (watched.out / "sweep" / name / "train/log.jsonl").read_text().splitlines()]
        curve = [(e.step, e.value) for e in events.Scalars("train/loss")]
        assert curve == [(row["step"], pytest.approx(row["loss"])) for row in log]
        result = read_json(watched.out / "sweep" / name / "result.json")
        assert [e.value for e in events.Scalars("trial/accuracy")] == [pytest.approx(result["accuracy"])]
        assert hparams(events) == {"selector": selector, "budget": "40%", "seed": 0.0}


def hparams(events):
    """Return what the HParams plugin reads of a trial."""
    from tensorboard.plugins.hparams import metadata

    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams_of_trial = metadata.parse_session_start_info_plugin_data(content).hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in hparams_of_trial.items()}


@pytest.mark.slow
def test_tensorboard_s_own_server_lists_trials_by_choice_with_their_accuracy(watched):
    from tensorboard.program import TensorBoard

    board = TensorBoard()
    board.configure(argv=[None, "--logdir", str(watched.out / "sweep"), "--host", "127.0.0.1", "--port", "0"])
    address = board.launch()

    def post(path, **body):
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{address}data/plugin/hparams/{path}", json.dumps(body).encode(), kind)
        with urllib.request.urlopen(request, timeout=20) as reply:
            return json.load(reply)

    for _ in range(100):  # it reads the files beside answering
        experiment = post("experiment", experimentName="")
        if len(experiment.get("hparamInfos", [])) == 3:
            break
        time.sleep(0.1)
    infos = {i["name"]: i.get("domainDiscrete") for i in experiment["hparamInfos"]}
    assert infos.keys() == {"selector", "budget", "seed"}
    asked = [{"hparam": name, "includeInResult": True} for name in infos]
    metric = {"metric": {"group": "", "tag": "trial/accuracy"}}
    columns = {"colParams": [*asked, metric], "allowedStatuses": ["STATUS_SUCCESS"], "startIndex": 0, "sliceSize": 9}
    groups = post("session_groups", experimentName="", **columns)["sessionGroups"]
    shown = {
        g["hparams"]["selector"]: [m["value"] for m in g["metricValues"] if m["name"]["tag"] == "trial/accuracy"]
        for g in groups
    }
    results = [read_json(watched.out / "sweep" / name / "result.json") for name in TRIALS]
    assert shown == {r["selector"]: [pytest.approx(r["accuracy"])] for r in results}


@pytest.mark.slow
def test_mlflow_has_a_run_for_each_trial(watched):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{watched.out}/mlflow.db")
    project = client.get_experiment_by_name("vinnow")
    runs = {run.info.run_name: run for run in client.search_runs([project.experiment_id])}
    assert runs.keys() == TRIALS.keys()
    for name, run in runs.items():
        result = read_json(watched.out / "sweep" / name / "result.json")
        assert run.info.status == "FINISHED"
        assert run.data.params.items() >= {"selector": TRIALS[name], "budget": "40%", "seed": "0"}.items()
        assert run.data.metrics["accuracy"] == pytest.approx(result["accuracy"])
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")]
        assert sorted(steps) == list(range(1, 9))


@pytest.mark.slow
def test_wandb_keeps_a_run_for_each_trial_without_a_network(watched):
    kept, lost = kept_runs(watched.out)
    assert (kept.keys(), lost) == (TRIALS.keys(), set()), watched.said
    for name, run in kept.items():
        result = read_json(watched.out / "sweep" / name / "result.json")
        assert run["config"].items() >= {"selector": TRIALS[name], "budget": "40%", "seed": 0}.items()
        assert [row["train/loss"] for row in run["history"] if "train/loss" in row]
        assert run["history"][-1]["accuracy"] == pytest.approx(result["accuracy"])
        assert (run["project"], run["group"]) == ("vinnow", "out")
