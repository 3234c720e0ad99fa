"""`vinnow evaluate --files`: official files to figures by the command, told and compared."""

import json

import official_files
import pytest
from endpoint import completion, serving
from judged_bench import judging, sides
from typer.testing import CliRunner
from vinnow.evaluate.config import TABLE
from vinnow.pipelines.cli.main import app
from vinnow.pipelines.comparing import compared
from vinnow.store.errors import InputError
from vinnow.store.tables import ANSWERS, read_rows


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
        (("--files", tmp_path, "--benchmark", "imbalance"), "reads a test pool"),
    ):
        with pytest.raises(InputError, match=words):
            vinnow(*base, *more)
    assert not (tmp_path / "out").exists()


def answering(text_of):
    """Answer with what is said to a question, of its text."""

    def answer(handler, body):
        asked = body["messages"][-1]["content"]
        text = asked if isinstance(asked, str) else "".join(part.get("text", "") for part in asked)
        handler.send(200, json.dumps(completion(text_of(text))).encode())

    return answer


def served(server, name, folder, out, *more):
    who = ("--engine", "openai", "--base-url", server.url, "--api-model", "m")
    return vinnow("evaluate", "--benchmark", name, "--files", folder, "--out", out, *who, *more)


# ScienceQA: B is right of all three, and is said of 1 (with a picture) and 3: 1 of 1 with a picture, 2 of 3 in all
# TextVQA: "stop" is said of both: 10 of 10 said so of the one, nobody of the other
@pytest.mark.parametrize(
    ("name", "say", "figures"),
    [
        ("scienceqa", lambda text: "A" if "Which is 2?" in text else "B", ("image accuracy", 1, 3)),
        ("textvqa", lambda text: "STOP", ("accuracy", 0.5, 2)),
    ],
    ids=["scienceqa", "textvqa"],
)
def test_from_files_to_a_comparison(name, say, figures, tmp_path):
    folder = getattr(official_files, name)(tmp_path / name)
    more = ("--set", "max_refused=0.5")
    with serving(default=answering(say)) as server:
        told = served(server, name, folder, tmp_path / "a", *more)
        assert json.loads(served(server, name, folder, tmp_path / "a", *more, "--json"))["parts"] == 0
        assert len(server.requests) == figures[2]
    assert f"{name}: {figures[0]} {figures[1]:.4f}" in told
    with serving(default=answering(lambda text: "")) as server:
        served(server, name, folder, tmp_path / "b", *more)
    told = json.loads(vinnow("compare", tmp_path / "b", tmp_path / "a", "--json"))
    assert (told[1]["questions"], told[1]["difference"]) == (
        figures[2],
        pytest.approx({2: 1 / 2, 3: 2 / 3}[figures[2]]),
    )


def test_llava_bench_from_its_folder_to_the_judge(tmp_path):
    folder, out = official_files.llava_bench(tmp_path / "bench"), tmp_path / "out"
    (folder / "images/002.jpg").unlink()  # the picture of questions 2 and 5
    with serving(default=answering(lambda text: f"said of {text}")) as server:
        with pytest.raises(InputError, match="image_missing 2"):
            served(server, "open", folder, out)
        told = served(server, "open", folder, out, "--set", "max_refused=0.5")
        assert len(server.requests) == 4
        assert {b["max_tokens"] for b in server.bodies} == {1024}
    assert f"vinnow judge {out}/answers.jsonl --files {folder} --base-url" in told
    lines = {n["question_id"]: n for n in map(json.loads, (out / "answers.jsonl").read_text().splitlines())}
    assert lines["4"]["metadata"] == {"category": "detail", "reference": "reference 4"}
    assert (lines["4"]["prompt"], lines["4"]["text"]) == ("What of 4?", "said of What of 4?")
    rows = {r["question"]: r for r in read_rows(str(out / "answers.parquet"), ANSWERS).to_pylist()}
    assert rows["0"]["cluster"] == rows["3"]["cluster"] != rows["1"]["cluster"]
    with serving(default=judging(lambda first, second: "8 6" if "reference" in first else "6 8")) as server:
        judge = ("judge", out / "answers.jsonl", "--files", folder, "--base-url", server.url, "--api-model", "gpt")
        told = json.loads(vinnow(*judge, "--out", tmp_path / "judged", "--json", "--set", "max_refused=0.5"))
        assert ("reference 4", "said of What of 4?") in map(sides, server.bodies)
    assert (told["reasons"], told["scores"]["all"]["questions"]) == ({"unanswered": 2}, 4)
    # 6 of 8 in both orders, whatever was said
    assert (told["scores"]["all"]["relative"], told["scores"]["conv"]["relative"]) == (75, 75)
    # the picture is back: those questions alone are asked
    official_files.llava_bench(folder)
    with serving(default=answering(lambda text: "now")) as server:
        assert "6 answers" in served(server, "open", folder, out)
        assert len(server.requests) == 2
        (folder / "context.jsonl").unlink()
        with pytest.raises(InputError, match=r"lacks context\.jsonl"):
            served(server, "open", folder, out)
