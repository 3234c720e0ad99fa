"""`vinnow evaluate --benchmark imbalance`: what it prints and draws, alone and beside another checkpoint."""

import json

import pytest
from reports import figures
from typer.testing import CliRunner
from vinnow.evaluate.config import ImbalanceConfig
from vinnow.evaluate.imbalance import ImbalanceActor
from vinnow.evaluate.shards import make_spec
from vinnow.models.load import model_digest
from vinnow.pipelines.cli.main import app
from vinnow.pipelines.imbalance import _distinct
from vinnow.store.errors import InputError

SETS = ("--set", "max_new_tokens=2", "--set", "rows_per_part=60")


def evaluate(model, pool, out, *more):
    arguments = ["evaluate", "--model", model, "--pool", pool, "--out", out, *SETS, *more]
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def parts(tiny_pool, target_pool, tiny_model, tmp_path_factory):
    """Outputs whose parts are there, of two pools: the command has only to join and to draw."""
    root = tmp_path_factory.mktemp("imbalance")
    for name, pool in (("one", tiny_pool), ("two", tiny_pool), ("target", target_pool)):
        values = {"model": tiny_model, "pool": pool, "run": model_digest(tiny_model), "rows_per_part": 60}
        actor = ImbalanceActor(
            make_spec(ImbalanceConfig.parse(values | {"max_new_tokens": 2}), str(root / name / "eval"))
        )
        for part in actor.shards:
            actor.compute(part)
    return root


def test_a_checkpoint_is_measured_and_drawn_beside_others(parts, tiny_pool, target_pool, tiny_model, ray_cluster):
    done = evaluate(tiny_model, tiny_pool, parts / "one" / "eval", "--benchmark", "imbalance")
    assert done.exit_code == 0, done.output
    report = json.loads((parts / "one" / "eval" / "imbalance.json").read_text())
    assert f"mean LMAR {report['lmar']:.4f}" in done.output
    assert "(48 rows, 12 left out {'no_image': 12})" in done.output
    assert str(parts / "one" / "eval" / "imbalance.html") in done.output
    here = (parts / "two" / "eval", "--set", "benchmark=imbalance", "--beside", parts / "one" / "eval")
    done = evaluate(tiny_model, tiny_pool, *here)
    assert done.exit_code == 0, done.output
    page = (parts / "two" / "eval" / "imbalance.html").read_text()
    assert page.count("<!doctype html>") == 1
    drawn = figures(page)
    assert list(drawn) == ["chart-lmar", "chart-mass"]
    for figure, lines in ((drawn["chart-lmar"], 1), (drawn["chart-mass"], 0)):
        assert all(figure["layout"][axis]["title"]["text"] for axis in ("xaxis", "yaxis"))
        curves = [t for t in figure["data"] if t["mode"] == "lines+markers"]
        bands = [t for t in figure["data"] if t.get("fill") == "toself"]
        assert (len(curves), len(bands), len(figure["data"])) == (2, 2, 4 + lines)
        assert all(len(c["x"]) == 2 for c in curves)  # two models of two layers
        assert [c["name"] for c in curves] == ["two/eval", "one/eval"]
    # the line at 1 stands where 1 is on the axis of the curves, and inside of the plot
    curve, line = drawn["chart-lmar"]["data"][1], drawn["chart-lmar"]["data"][-1]
    assert curve["y"] == pytest.approx(report["curve"]["lmar"], rel=1e-6)
    assert (line["name"], line["y"]) == ("balanced", [1.0, 1.0])
    assert drawn["chart-lmar"]["layout"]["yaxis"]["range"][1] > max(1.0, *curve["y"])
    for name in ("one/eval", "two/eval"):
        assert f">{name}<" in page
    for task, rows in report["rows_by_task"].items():
        assert f'>one/eval: {task}</th><td class="n">{rows}</td>' in page
    # and another pool's rows are other rows
    elsewhere = evaluate(
        tiny_model,
        target_pool,
        parts / "target" / "eval",
        "--benchmark",
        "imbalance",
        "--beside",
        parts / "one" / "eval",
    )
    assert isinstance(elsewhere.exception, InputError)
    assert "another pool" in str(elsewhere.exception)


def test_what_cannot_be_drawn_is_explained(tiny_pool, tiny_model, tmp_path):
    nothing = evaluate(tiny_model, tiny_pool, tmp_path, "--benchmark", "imbalance", "--beside", tmp_path / "none")
    assert "no finished imbalance measurement" in str(nothing.exception)
    many = evaluate(tiny_model, tiny_pool, tmp_path, "--benchmark", "imbalance", *(["--beside", "x"] * 7))
    assert "at most 6" in str(many.exception)
    scored = evaluate(tiny_model, tiny_pool, tmp_path, "--benchmark", "yes_no", "--beside", tmp_path)
    assert "--beside is for --benchmark imbalance" in str(scored.exception)
    typo = evaluate(tiny_model, tiny_pool, tmp_path, "--benchmark", "imbalanc")
    assert "unknown benchmark 'imbalanc'; did you mean 'imbalance'" in str(typo.exception)


def test_names_are_as_short_as_they_can_be_told_apart():
    assert _distinct(["/a/mores/eval", "/a/plain/eval"]) == ["mores/eval", "plain/eval"]
    assert _distinct(["/a/b"]) == ["b"]
    assert _distinct(["/a/b", "/a/b"]) == ["/a/b", "/a/b"]
