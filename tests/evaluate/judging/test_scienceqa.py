"""ScienceQA with a language model over HTTP: two schemes worked by hand, nothing guessed, nothing paid twice."""

import json

import pytest
from endpoint import completion, serving, status
from official_files import picture
from typer.testing import CliRunner
from vinnow.evaluate.answering import evals_of
from vinnow.evaluate.benchmarks.scienceqa import ScienceQA
from vinnow.evaluate.clusters import Clusters
from vinnow.evaluate.judging.outcomes import counted, settled
from vinnow.evaluate.judging.scheme_config import SchemeConfig
from vinnow.evaluate.judging.scienceqa import judge_scienceqa
from vinnow.evaluate.official import prepare
from vinnow.pipelines.cli.main import app
from vinnow.pipelines.comparing import compared
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError, KeyMismatchError
from vinnow.store.refusals import write_refused
from vinnow.store.tables import EVALS, OUTCOMES, read_rows, write_rows

# problem: (picture, right letter, the model's text, the language model's text, its last word where it is asked again)
CASES = {
    "1": (True, "B", "B", "There is much. The answer is B.", None),
    "2": (True, "B", "B", "The answer is A.", "The second is right. The answer is B."),
    "3": (True, "A", "B", "I would need the picture.", "The answer is A."),
    "4": (True, "A", "A", "I would need the picture.", "The answer is B."),
    "5": (False, "A", "B", "Reasons. The answer is A.", "The answer is A."),
    "6": (False, "B", "(B)", "B", "B"),
    "7": (False, "B", "b", "It is the second.", None),
    "8": (False, "B", "A", "The answer is B.", "It could be A or B."),
    "9": (False, "A", "A", "The answer is E.", "A. one"),
}


@pytest.fixture
def evaluation(tmp_path):
    """An evaluation of nine problems, in the folder that `vinnow evaluate --files` would have made."""
    problems = {
        pid: {
            "question": f"Which is {pid}?",
            "choices": ["one", "two"],
            "answer": "AB".index(right),
            "hint": "",
            "image": "image.png" if shown else None,
            "lecture": "",
            "solution": "",
            "subject": "natural science" if pid < "5" else "social science",
            "split": "test",
        }
        for pid, (shown, right, *_) in CASES.items()
    }
    files, out = tmp_path / "scienceqa", tmp_path / "evals"
    files.mkdir()
    (files / "problems.json").write_text(json.dumps(problems))
    (files / "pid_splits.json").write_text(json.dumps({"test": list(CASES)}))
    for pid, (shown, *_) in CASES.items():
        if shown:
            picture(files / "images" / "test" / pid / "image.png")
    pool = Pool(prepare("scienceqa", str(files), None, str(out)).pool)
    records = pool.take(pool.ids())
    said = [CASES[str(r.extra["id"])][2] for r in records]
    scores = [ScienceQA().score(a, r) for a, r in zip(said, records, strict=True)]
    rows = evals_of("m", "scienceqa", records, said, scores, Clusters(pool.image_root))
    write_rows(out / "evals.parquet", rows, EVALS)
    return out


def speaking(handler, body):
    """The language model: first its answer to a problem, its last word where it is shown two answers."""
    text = body["messages"][-1]["content"]
    case = CASES[text.split("Which is ")[1][0]]
    handler.send(200, json.dumps(completion(case[4] if "[Answer 2]" in text else case[3])).encode())


def config_for(evaluation, url, **changes):
    endpoint = {"base_url": url, "model": "gpt", "backoff_s": 0.01, "timeout_s": 5} | changes.pop("endpoint", {})
    return SchemeConfig.parse({"evaluation": str(evaluation), "endpoint": endpoint, "scheme": "judge"} | changes)


def letters(out):
    rows = read_rows(out / "outcomes.parquet", OUTCOMES).to_pylist()
    return {pid: row["letter"] for pid, row in zip(CASES, rows, strict=True)}


def test_complement_takes_the_language_model_first(evaluation, tmp_path):
    with serving(default=speaking) as server:
        report = judge_scienceqa(config_for(evaluation, server.url, scheme="complement"), str(tmp_path / "out"))
        assert len(server.requests) == 9
    # 3, 4, 7 and 9 (no such option) have no letter of the language model's; 7 has none at all
    wanted = {"1": "B", "2": "A", "3": "B", "4": "A", "5": "A", "6": "B", "7": None, "8": "B", "9": "A"}
    assert letters(tmp_path / "out") == wanted
    right = {pid for pid, letter in wanted.items() if letter == CASES[pid][1]}
    assert right == {"1", "4", "5", "6", "8", "9"}
    assert report.combined["parts"]["accuracy"] == pytest.approx(6 / 9)
    assert (report.combined["headline"], report.combined["value"]) == ("image accuracy", 2 / 4)
    # alone: the model 1, 2, 4, 9; the language model 1, 5, 6, 8; one of the two all of these
    assert report.model["parts"]["accuracy"] == pytest.approx(4 / 9)
    assert (report.model["value"], report.second["value"]) == (3 / 4, 1 / 4)
    assert report.second["parts"]["accuracy"] == pytest.approx(4 / 9)
    assert report.either == pytest.approx(7 / 9)
    assert report.counts == {
        "model_unread": 2,
        "second_unread": 4,
        "both_unread": 1,
        "differ": 7,
        "judged": 0,
        "judge_unread": 0,
        "lost": 0,
        "unasked": 0,
    }


def test_what_the_evaluation_refused_is_wrong_whoever_could_answer_it(evaluation, tmp_path):
    pool = Pool(str(evaluation / "pool"))
    (record,) = (r for r in pool.take(pool.ids()) if str(r.extra["id"]) == "5")
    rows = [(record.sample_id, "scienceqa", "image_missing", "gone")]
    write_refused(evaluation, "answers", 0, "part-000000-x", rows)
    with serving(default=speaking) as server:
        report = judge_scienceqa(config_for(evaluation, server.url, scheme="complement"), str(tmp_path / "out"))
        assert len(server.requests) == 8
    assert (report.counts["unasked"], letters(tmp_path / "out")["5"]) == (1, None)
    assert report.combined["parts"]["accuracy"] == pytest.approx(5 / 9)


def test_the_judge_is_asked_where_they_differ_and_is_shown_both(evaluation, tmp_path):
    with serving(default=speaking) as server:
        report = judge_scienceqa(config_for(evaluation, server.url), str(tmp_path / "out"))
        texts = [b["messages"][-1]["content"] for b in server.bodies]
        again = judge_scienceqa(config_for(evaluation, server.url), str(tmp_path / "out"))
        assert len(server.requests) == 16
    wanted = {"1": "B", "2": "B", "3": "A", "4": "B", "5": "A", "6": "B", "7": None, "8": None, "9": "A"}
    assert letters(tmp_path / "out") == wanted
    assert report.combined["parts"] == {
        "accuracy": pytest.approx(6 / 9),
        "natural science accuracy": 3 / 4,
        "social science accuracy": pytest.approx(3 / 5),
    }
    assert report.combined["value"] == 3 / 4
    assert {n: report.counts[n] for n in ("differ", "judged", "judge_unread")} == {
        "differ": 7,
        "judged": 7,
        "judge_unread": 1,
    }
    assert (report.requests, again.requests, again.combined) == (16, 0, report.combined)
    first, final = (next(t for t in texts if "Which is 3?" in t and ("[Answer 2]" in t) == f) for f in (False, True))
    assert first.startswith(
        "[Question]\nWhich is 3?\nA. one\nB. two\n\n[Picture]\nThe question has a picture.\n\n[System]"
    )
    assert "[Answer 1]\nB\n\n[End of Answer 1]\n\n[Answer 2]\nI would need the picture.\n\n[End of Answer 2]" in final
    assert not any("[Picture]" in t for t in texts if "Which is 5?" in t)
    assert all("<image>" not in t for t in texts)
    # the model's own evaluation is of the same questions
    rows = compared([str(evaluation), str(tmp_path / "out")])
    assert (rows[1]["questions"], rows[1]["clusters"]) == (9, 9)
    assert rows[1]["difference"] == pytest.approx(2 / 9)


def test_what_never_came_is_told_and_tried_again(evaluation, tmp_path):
    limits = {"max_tries": 1, "concurrency": 1}
    with serving(status(500), default=speaking) as server:
        with pytest.raises(InputError, match=r"judge: 11\.1% of the rows were refused.*no_answer 1"):
            judge_scienceqa(config_for(evaluation, server.url, endpoint=limits), str(tmp_path / "out"))
        assert not (tmp_path / "out" / "evals.json").exists()
        report = judge_scienceqa(config_for(evaluation, server.url, endpoint=limits), str(tmp_path / "out"))
        assert (report.reasons, len(server.requests)) == ({}, 17)
    with serving(status(500), default=speaking) as server:
        config = config_for(evaluation, server.url, endpoint=limits, max_refused=0.2)
        report = judge_scienceqa(config, str(tmp_path / "other"))
    assert (report.reasons, report.counts["lost"], letters(tmp_path / "other")["1"]) == ({"no_answer": 1}, 1, None)
    assert report.combined["parts"]["accuracy"] == pytest.approx(5 / 9)


def test_a_language_model_that_declines_has_no_answer(evaluation, tmp_path):
    def silent(handler, body):
        handler.send(200, json.dumps(completion("The answer is B.", finish="content_filter")).encode())

    with serving(default=silent) as server:
        report = judge_scienceqa(config_for(evaluation, server.url, scheme="complement"), str(tmp_path / "out"))
    assert (report.counts["second_unread"], report.reasons) == (9, {})
    assert report.combined == report.model


def test_evaluations_that_do_not_fit(evaluation, tmp_path):
    config = config_for(evaluation, "http://localhost:1")
    with pytest.raises(InputError, match="no evaluation at"):
        judge_scienceqa(config.model_copy(update={"evaluation": str(tmp_path)}), str(tmp_path / "out"))
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "evals.parquet").write_bytes((evaluation / "evals.parquet").read_bytes())
    with pytest.raises(InputError, match=r"holds no pool of its questions.*--pool"):
        judge_scienceqa(config.model_copy(update={"evaluation": str(alone)}), str(tmp_path / "out"))
    with pytest.raises(InputError, match="lies in the output folder"):
        judge_scienceqa(config, str(evaluation))
    table = read_rows(evaluation / "evals.parquet", EVALS)
    pool = Pool(str(evaluation / "pool"))
    other = evals_of("m", "exact_match", pool.take(pool.ids()), ["A"] * 9, [0.0] * 9, Clusters(None))
    write_rows(evaluation / "evals.parquet", other, EVALS)
    with pytest.raises(InputError, match="is of exact_match; the schemes are for scienceqa"):
        judge_scienceqa(config, str(tmp_path / "out"))
    stray = table.set_column(3, EVALS.field("sample"), [["77", *table["sample"].to_pylist()[1:]]])
    write_rows(evaluation / "evals.parquet", stray, EVALS)
    with pytest.raises(InputError, match="lacks 1 of 9 answered questions, first 77"):
        judge_scienceqa(config, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_scheme_has_its_own_folder(evaluation, tmp_path):
    with serving(default=speaking) as server:
        judge_scienceqa(config_for(evaluation, server.url), str(tmp_path / "out"))
        (tmp_path / "rule.txt").write_text("Name a letter.")
        for changes in ({"scheme": "complement"}, {"final_rule": str(tmp_path / "rule.txt")}, {"temperature": 1}):
            with pytest.raises(KeyMismatchError, match="judged otherwise"):
                judge_scienceqa(config_for(evaluation, server.url, **changes), str(tmp_path / "out"))
        assert len(server.requests) == 16


def test_two_that_say_nothing_are_the_same():
    def never():
        raise AssertionError("asked again")

    both = settled("judge", None, "I cannot say.", 2, never)
    assert (both.letter, both.differs, counted([both])["both_unread"]) == (None, False, 1)
    # a letter beyond the problem's choices is none
    assert settled("complement", "A", "The answer is C.", 2, never).letter == "A"
    assert settled("complement", "A", "The answer is C.", 3, never).letter == "C"


def test_the_command(evaluation, tmp_path):
    with serving(default=speaking) as server:
        words = [
            "judge",
            str(evaluation),
            "--base-url",
            server.url,
            "--api-model",
            "gpt",
            "--out",
            str(tmp_path / "out"),
        ]
        told = CliRunner().invoke(app, [*words, "--scheme", "judge"])
        assert told.exit_code == 0, told.output
        rows = {line.split()[1]: line.split() for line in told.output.splitlines() if line.startswith("│")}
        assert rows["judge"][3:6:2] == ["0.7500", "0.6667"]
        assert "on 7 the two differ, 7 were asked again" in told.output
        assert "of both 1, of the judge 1; one of the two was right on 0.7778" in told.output
        again = CliRunner().invoke(app, [*words, "--scheme", "judge", "--json"])
        assert json.loads(again.stdout)["requests"] == 0
        for more, said in (
            ([], "want --files"),
            (["--scheme", "judge", "--files", "x"], "--files: for open answers alone"),
            (["--scheme", "judgement"], "scheme: Input should be 'complement' or 'judge'"),
            (["--files", "x", "--pool", "y"], "no --pool"),
        ):
            assert said in str(CliRunner().invoke(app, [*words, *more]).exception)
