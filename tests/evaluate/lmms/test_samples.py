"""lmms-eval's per-sample files: read back by document, compared by pairs, and nothing passed over."""

import json
from hashlib import sha256

import pytest
from typer.testing import CliRunner
from vinnow.evaluate.lmms.samples import SamplesConfig, import_samples
from vinnow.pipelines.cli.main import app
from vinnow.pipelines.comparing import compared
from vinnow.store.errors import DuplicateRowsError, InputError, KeyMismatchError, MissingRowsError
from vinnow.store.tables import EVALS, read_rows

NOTHING = sha256(b"null").hexdigest()


def row(number, score, **changes):
    """A line as lmms-eval 0.7.3 writes it with --log_samples (recorded, but for `doc_hash`)."""
    plain = {
        "doc_id": number,
        "target": "yes",
        "filtered_resps": "no",
        "token_counts": [{"input_tokens": 51, "output_tokens": 8}],
        "doc_hash": sha256(str(number).encode()).hexdigest(),
        "input_media": [f"images/{number // 3}.png"],
        "exact": score,
        "input": "is it?",
    }
    return plain | changes


def write(folder, rows, name="20261128_082636_samples_tiny_vqa.jsonl"):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return str(path)


def imported(out, *files, metric="exact", **more):
    return import_samples(SamplesConfig(files=files, metric=metric, **more), str(out))


def test_rows_come_back_by_document(tmp_path):
    path = write(tmp_path / "llava", [row(i, float(i % 2)) for i in reversed(range(6))])
    report = imported(tmp_path / "out", path)
    rows = read_rows(report.path, EVALS).to_pylist()
    assert (report.rows, report.score, report.accuracy, report.by_number, report.no_picture) == (6, 0.5, 0.5, 0, 0)
    assert rows[0] == {
        "run": "llava",
        "benchmark": "lmms-eval tiny_vqa exact",
        "task": "tiny_vqa",
        "sample": sha256(b"5").hexdigest(),
        "correct": True,
        "score": 1.0,
        "answer": "no",
        "reference": "yes",
        "cluster": "path:images/1.png",
    }


def test_two_models_are_compared_by_pairs_and_pictures(tmp_path):
    scores = [i % 3 == 0 for i in range(30)]
    write(tmp_path / "a", [row(i, float(s)) for i, s in enumerate(scores)])
    # the other way round, and better by six pictures
    better = [row(i, float(s or i < 18)) for i, s in enumerate(scores)]
    write(tmp_path / "b", better[::-1])
    for name in "ab":
        imported(tmp_path / "evals" / name, str(tmp_path / name / "20261128_082636_samples_tiny_vqa.jsonl"))
    first, second = compared([str(tmp_path / "evals" / name) for name in "ab"])
    assert (first["questions"], first["clusters"], second["clusters"]) == (30, 10, 10)
    assert second["difference"] == pytest.approx(12 / 30)


def test_scores_on_another_scale_are_another_benchmark_and_a_folder_is_one_seed(tmp_path, capsys):
    path = write(tmp_path / "llava", [row(i, float(i % 2)) for i in range(6)])
    imported(tmp_path / "a", path)
    done = CliRunner().invoke(
        app, ["import-lmms", path, "--metric", "exact", "--most", "100", "--out", str(tmp_path / "b")]
    )
    assert "no row has more than 1 of 100: was --most 100 meant?" in done.output + capsys.readouterr().out
    with pytest.raises(InputError, match="several benchmarks"):
        compared([str(tmp_path / "a"), str(tmp_path / "b")])
    with pytest.raises(InputError, match="twice: seeds of one choice"):
        compared([f"{tmp_path}/a,{tmp_path}/b/../a", str(tmp_path / "b")])


def test_a_hash_of_nothing_is_no_pair(tmp_path):
    """lmms-eval 0.7.3 hashes no document: all rows have the hash of null."""
    path = write(tmp_path / "m", [row(i, 1, doc_hash=NOTHING, target=str(i)) for i in range(4)])
    other = write(tmp_path / "n", [row(i, 1, doc_hash=NOTHING, target=str(i)) for i in (3, 1, 2, 0)])
    report = imported(tmp_path / "m-out", path)
    assert report.by_number == 4
    imported(tmp_path / "n-out", other)
    assert compared([str(tmp_path / "m-out"), str(tmp_path / "n-out")])[1]["difference"] == 0
    # the same number of another file is another question
    moved = write(tmp_path / "o", [row(i, 1, doc_hash=NOTHING, target=str(i + 1)) for i in range(4)])
    imported(tmp_path / "o-out", moved)
    with pytest.raises(InputError, match="0 in common"):
        compared([str(tmp_path / "m-out"), str(tmp_path / "o-out")])


def test_pictures_inside_and_unknown_ones(tmp_path):
    inside = "data:image/png;base64,AAAA"
    rows = [row(0, 1, input_media=[inside]), row(1, 1, input_media=[inside, "x.png"]), row(2, 1)]
    del rows[2]["input_media"]
    report = imported(tmp_path / "out", write(tmp_path / "m", rows))
    clusters = read_rows(report.path, EVALS)["cluster"].to_pylist()
    assert clusters[0] == clusters[1] == f"hash:{sha256(inside.encode()).hexdigest()[:32]}"
    assert (clusters[2], report.no_picture) == (None, 1)


def test_pictures_that_a_file_of_clusters_knows(tmp_path):
    rows = [row(i, 1, input_media=None) for i in range(6)]
    write(tmp_path / "a", rows)
    known = write(
        tmp_path, [{"task": "tiny_vqa", "doc_id": i, "picture": f"p{i // 2}"} for i in range(4)], "clusters.jsonl"
    )
    path = str(tmp_path / "a" / "20261128_082636_samples_tiny_vqa.jsonl")
    report = imported(tmp_path / "a-out", path, clusters=(known,))
    assert read_rows(report.path, EVALS)["cluster"].to_pylist() == ["pixels:p0"] * 2 + ["pixels:p1"] * 2 + [None] * 2
    assert report.no_picture == 2
    # one side is enough
    imported(tmp_path / "b-out", write(tmp_path / "b", rows))
    assert compared([str(tmp_path / "b-out"), str(tmp_path / "a-out")])[1]["clusters"] == 4


def test_a_metric_of_fields_and_of_per_cent(tmp_path):
    fields = [row(i, {"question_id": str(i), "score": 50 * i, "prediction": "no"}) for i in range(3)]
    path = write(tmp_path / "m", fields)
    report = imported(tmp_path / "out", path, metric="exact.score", most=100)
    assert (report.score, report.accuracy) == (0.5, pytest.approx(1 / 3))
    with pytest.raises(InputError, match=r"no number; name one of its numbers: exact\.score"):
        imported(tmp_path / "other", path)
    with pytest.raises(InputError, match=r"exact.score is 50, not from 0 to 1"):
        imported(tmp_path / "other", path, metric="exact.score")
    with pytest.raises(InputError, match=r"it has no 'exact.scor'; did you mean 'exact.score'"):
        imported(tmp_path / "other", path, metric="exact.scor")
    dotted = write(tmp_path / "d", [row(0, 1) | {"acc.norm": True}])
    assert imported(tmp_path / "d-out", dotted, metric="acc.norm").score == 1


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ('{"doc_id": 5, "exa', r"1 of 3 rows cannot be used \(\w+ 1\), first .*row 3"),
        (row(5, None), "exact is None, no number"),
        (row(5, "1.0"), "exact is '1.0', no number"),
        (row(5, [1, 1]), r"exact is \[1, 1\], no number"),
        (
            '{"doc_id": 5, "doc_hash": "x", "target": "y", "filtered_resps": "n", "exact": NaN}',
            "exact is nan, no number",
        ),
        (row(5, -0.5), "exact is -0.5, not from 0 to 1"),
        ({k: v for k, v in row(5, 1).items() if k != "exact"}, "it has no 'exact'"),
        (row(5, 1, doc_hash=None), "it has no doc_hash"),
        ("[1, 2]", r"it holds \[1, 2\]"),
    ],
)
def test_a_row_that_is_none_is_counted_and_refused(tmp_path, bad, words):
    path = write(tmp_path / "m", [row(0, 1), row(1, 0), bad])
    with pytest.raises(InputError, match=words):
        imported(tmp_path / "out", path)
    assert not (tmp_path / "out").exists()


def test_files_that_do_not_go_together(tmp_path):
    whole = write(tmp_path / "m", [row(0, 1), row(1, 0)])
    with pytest.raises(DuplicateRowsError, match=r"row 3: document 0 is there already \(.*row 1\).*several filters"):
        imported(tmp_path / "out", write(tmp_path / "twice", [row(0, 1), row(1, 0), row(0, 1)]))
    with pytest.raises(DuplicateRowsError):
        imported(tmp_path / "out", whole, write(tmp_path / "m", [row(1, 0)], "b_samples_tiny_vqa.jsonl"))
    with pytest.raises(InputError, match=r"2 tasks \(pope, tiny_vqa\)"):
        imported(tmp_path / "out", whole, write(tmp_path / "m", [row(1, 0)], "b_samples_pope.jsonl"))
    with pytest.raises(InputError, match="is no per-sample file"):
        imported(tmp_path / "out", write(tmp_path / "m", [row(1, 0)], "results.json"))
    with pytest.raises(MissingRowsError, match="is empty"):
        imported(tmp_path / "out", write(tmp_path / "e", []))
    with pytest.raises(InputError, match="there is no"):
        imported(tmp_path / "out", str(tmp_path / "m" / "x_samples_tiny_vqa.jsonl"))
    rest = write(tmp_path / "n", [row(2, 1)])
    with pytest.raises(InputError, match=r"several folders \(m, n\): --run"):
        imported(tmp_path / "out", whole, rest)
    assert imported(tmp_path / "out", whole, rest, run="both").rows == 3
    assert imported(tmp_path / "out", rest, whole, run="both").rows == 3
    with pytest.raises(KeyMismatchError, match=r"other answers lie here \(files differ\)"):
        imported(tmp_path / "out", whole, run="both")


def test_the_command(tmp_path):
    path = write(tmp_path / "m", [row(i, 1, doc_hash=NOTHING, input_media=None) for i in range(3)])
    words = ["import-lmms", path, "--metric", "exact", "--out", str(tmp_path / "out")]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    assert "3 answers, exact 1.0000" in told.output
    assert "3 rows have a doc_hash of nothing" in told.output
    assert "3 rows do not name their picture" in told.output
    assert json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["key"]["task"] == "tiny_vqa"
