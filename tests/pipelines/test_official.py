"""`vinnow evaluate --files`: official files to figures by the command, told and compared."""

import json

import official_files
import pytest
from typer.testing import CliRunner
from vinnow.evaluate.config import TABLE
from vinnow.pipelines.cli.main import app
from vinnow.pipelines.comparing import compared
from vinnow.store.errors import InputError


def vinnow(*arguments):
    """Run the command in this process; its errors are raised."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def evaluation(name, folder, model, out, *more):
    common = ("evaluate", "--benchmark", name, "--files", folder, "--model", model, "--out", out)
    return vinnow(*common, "--set", "max_new_tokens=2", "--gpus", "0", *more)


def test_pope_by_the_command(tiny_model, tmp_path, ray_cluster):
    folder = official_files.pope(tmp_path / "pope")
    path = folder / "coco_pope_random.json"
    path.write_text(path.read_text() + path.read_text().splitlines()[0])
    told = evaluation("pope", folder, tiny_model, tmp_path / "a")
    assert "pope: mean F1 0." in told or "pope: mean F1 1.0" in told
    assert "random yes ratio" in told
    assert "1 rows of the files are no question (duplicate 1)" in told
    saved = json.loads(evaluation("pope", folder, tiny_model, tmp_path / "a", "--json"))
    assert (saved["metrics"]["headline"], saved["left_out"], saved["parts"]) == ("mean F1", {"duplicate": 1}, 0)
    # other pictures, the same questions: pairs
    vinnow(
        *("evaluate", "--benchmark", "pope", "--pool", tmp_path / "a/pool", "--model", tiny_model, "--gpus", "0"),
        *("--out", tmp_path / "b", "--set", "max_new_tokens=2"),
    )
    assert (tmp_path / "b" / TABLE).is_file()
    rows = compared([str(tmp_path / "a"), str(tmp_path / "b")])
    assert (rows[1]["questions"], rows[1]["difference"]) == (12, 0)


def test_sources_of_questions_are_one(tiny_model, tiny_pool, tmp_path):
    base = ("evaluate", "--model", tiny_model, "--out", tmp_path / "out", "--gpus", "0")
    for more, words in (
        ((), "name one of them"),
        (("--pool", tiny_pool, "--files", tmp_path), "name one of them"),
        (("--pool", tiny_pool, "--images", tmp_path), "--images goes with --files"),
        (("--files", tmp_path, "--set", f"pool={tiny_pool}"), "both name the questions"),
        (("--files", tmp_path), "'exact_match' has no official files"),
    ):
        with pytest.raises(InputError, match=words):
            vinnow(*base, *more)
    assert not (tmp_path / "out").exists()
