"""The entry point of lmms-eval: whole without it, and its own evaluator over a local task where it is installed."""

import importlib
import json
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from vinnow.evaluate.config import EvalConfig
from vinnow.evaluate.lmms import plugin
from vinnow.evaluate.lmms.samples import SamplesConfig, import_samples
from vinnow.evaluate.run import evaluate
from vinnow.pool.reader import Pool
from vinnow.pool.refusals import IMAGE
from vinnow.store.errors import InputError
from vinnow.store.tables import EVALS, read_rows

ROOT = Path(__file__).parents[3]
ABSENT = find_spec("lmms_eval") is None
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/docs.jsonl}}}}
test_split: test
output_type: {kind}
doc_to_visual: !function helpers.doc_to_visual
doc_to_text: "{{{{question}}}}"
doc_to_target: {target}
{more}
metadata: {{version: 0.0}}
"""
HELPERS = """
from PIL import Image


def doc_to_visual(doc):
    return [Image.open(doc["image"]).convert("RGB")] if doc["image"] else []


def process_results(doc, results):
    return {"same": float(results[0] == doc["said"])}
"""
ASKED = """generation_kwargs: {max_new_tokens: 6, temperature: 0, do_sample: false, num_beams: 1, until: ["</s>"]}
process_results: !function helpers.process_results
metric_list: [{metric: same, aggregation: mean, higher_is_better: true}]"""
CHOSEN = """doc_to_choice: ["yes", "red", "circle"]
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]"""


def test_the_entry_point_is_there():
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["lmms_eval.models"]
    module, _, name = points["vinnow"].partition(":")
    assert getattr(importlib.import_module(module), name) is plugin.manifests


@pytest.mark.skipif(not ABSENT, reason="lmms-eval is installed")
def test_without_lmms_eval_it_says_what_to_install():
    for call in (plugin.manifests, lambda: plugin.VinnowModel(pretrained="x")):
        with pytest.raises(InputError, match=r"lmms-eval is not installed here: pip install 'vinnow\[lmms\]'"):
            call()


@pytest.fixture(scope="module")
def run_task(tiny_model, tiny_pool, tmp_path_factory):
    """Answer the tiny pool ourselves, then have lmms-eval's evaluator do it; return (our rows, what it returns)."""
    evaluator = pytest.importorskip("lmms_eval.evaluator")
    from lmms_eval.models import MODEL_REGISTRY_V2
    from lmms_eval.tasks import TaskManager

    MODEL_REGISTRY_V2.register_manifest(plugin.manifests(), overwrite=True)
    folder, pool = tmp_path_factory.mktemp("lmms"), Pool(tiny_pool)
    own = EvalConfig(model=tiny_model, pool=tiny_pool, run="r", max_new_tokens=6)
    rows = read_rows(evaluate(own, str(folder / "own"), here=True).path, EVALS).to_pylist()
    said = {row["sample"]: row["answer"] for row in rows}
    docs = [
        {
            "image": f"{pool.image_root}/{r.images[0]}" if r.images else "",
            "question": r.conversations[0]["value"].removeprefix(f"{IMAGE}\n"),
            "said": said[str(r.sample_id)],
        }
        for r in pool.take(pool.ids())
    ]
    (folder / "docs.jsonl").write_text("".join(json.dumps(d) + "\n" for d in docs))
    (folder / "helpers.py").write_text(HELPERS)
    for name, kind, target, more in (
        ("vinnow_asked", "generate_until", '"{{said}}"', ASKED),
        ("vinnow_chosen", "multiple_choice", "0", CHOSEN),
    ):
        text = TASK.format(name=name, folder=folder, kind=kind, target=target, more=more)
        (folder / f"{name}.yaml").write_text(text)

    plain = {"model": "vinnow", "model_args": f"pretrained={tiny_model},device=cpu", "batch_size": "8"}
    plain |= {"task_manager": TaskManager(include_path=str(folder), model_name="vinnow"), "bootstrap_iters": 0}

    def run(name, more_args="", **more):
        return evaluator.simple_evaluate(
            tasks=[name], **plain | {"model_args": plain["model_args"] + more_args}, **more
        )

    return docs, run


def test_its_evaluator_has_our_answers(run_task, tmp_path):
    docs, run = run_task
    clusters = str(tmp_path / "clusters.jsonl")
    results = run("vinnow_asked", f",clusters={clusters}")
    samples = results["samples"]["vinnow_asked"]
    assert [s["filtered_resps"][0] for s in samples] == [docs[s["doc_id"]]["said"] for s in samples]
    assert results["results"]["vinnow_asked"]["same,none"] == 1
    from lmms_eval.loggers import EvaluationTracker

    tracker = EvaluationTracker(output_path=str(tmp_path / "logs"))
    tracker.date_id, tracker.general_config_tracker.model_name_sanitized = "20261128", "tiny"
    tracker.save_results_samples("vinnow_asked", samples)
    (path,) = (tmp_path / "logs").rglob("*_samples_vinnow_asked.jsonl")
    config = SamplesConfig(files=(str(path),), metric="same", clusters=(clusters,))
    report = import_samples(config, str(tmp_path / "out"))
    pictured = sum(bool(d["image"]) for d in docs)
    assert (report.rows, report.score, report.no_picture) == (60, 1, 60 - pictured)
    keys = read_rows(report.path, EVALS)["cluster"].to_pylist()
    assert sum(str(k).startswith("pixels:") for k in keys) == pictured


def test_its_evaluator_takes_the_likeliest_choice(run_task):
    _, run = run_task
    results = run("vinnow_chosen", limit=6)
    for sample in results["samples"]["vinnow_chosen"]:
        losses = [float(loss) for loss, _ in sample["filtered_resps"]]
        assert len(losses) == 3
        assert sample["acc"] == float(losses[0] == min(losses))


def test_what_it_may_ask_for_and_is_not_there(tiny_model, monkeypatch):
    pytest.importorskip("lmms_eval")
    model = plugin.VinnowModel(pretrained=tiny_model, device="cpu")
    request = type("Instance", (), {"task_name": "rounds"})()
    for ask in (model.generate_until_multi_round, model.generate_until_agentic, model.generate_visual_cot):
        with pytest.raises(InputError, match="task rounds asks for"):
            ask([request])
    with pytest.raises(InputError, match="unknown field 'templat'; did you mean 'template'"):
        plugin.VinnowModel(pretrained=tiny_model, templat="v1")
    with pytest.raises(InputError, match="apply_chat_template"):
        _ = model.chat_template
    model.clean()
    with pytest.raises(InputError, match="let go"):
        model.generate_until([])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="several processes"):
        plugin.VinnowModel(pretrained=tiny_model)
