"""MMBench: its tables read in bounded memory, its answers read by its own rules, CircularEval worked by hand."""

import base64
import io
import json
import zipfile
from xml.etree import ElementTree

import official_files
import pytest
from PIL import Image
from vinnow.evaluate import official, registry
from vinnow.evaluate.benchmark import Answered, fair_score
from vinnow.evaluate.config import EvalConfig
from vinnow.evaluate.letters import named_option, shifts
from vinnow.evaluate.picture_table import rows_of
from vinnow.evaluate.run import evaluate
from vinnow.evaluate.xlsx import write_xlsx
from vinnow.pool.reader import Pool
from vinnow.pool.records import Record
from vinnow.pool.refusals import RefusedError
from vinnow.store.errors import InputError
from vinnow.store.refusals import read_refused
from vinnow.store.tables import EVALS, read_rows


def prepared(folder, out, name="mmbench", **more):
    return official.prepare(name, str(folder), None, str(out), **more)


def records_of(ready):
    pool = Pool(ready.pool)
    return pool.take(pool.ids())


def run(ready, model, **changes):
    fields = {"model": model, "pool": ready.pool, "run": "r", "benchmark": ready.benchmark.name, "max_new_tokens": 2}
    return evaluate(EvalConfig.parse(fields | changes), ready.out, here=True)


def sheet_of(path):
    """Return the rows of a workbook's sheet."""
    with zipfile.ZipFile(path) as archive:
        tree = ElementTree.fromstring(archive.read("xl/worksheets/sheet1.xml"))
    space = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    return [{c.get("r")[0]: "".join(c.itertext()) for c in row.iter(f"{space}c")} for row in tree.iter(f"{space}row")]


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("The answer is B", "B"),
        ("b", None),
        ("B or C", None),
        # "A" may be an article in more than three words: then marks, then the options' texts
        ("A cat is there", "A"),
        ("A dog is there", "B"),
        ("A thing is there", None),
        ("It is A", "A"),
        # a letter that is no option of this question is read all the same, and wrong
        ("D", "D"),
        ("E", "E"),
        ("A DOG", "A"),
        ("a dog", "B"),
        ("a cat or a dog", None),
        ("", None),
        ("Answer:B", None),
    ],
)
def test_answers_are_read_by_mmbench_s_rules(answer, letter):
    assert named_option(answer, ["a cat", "a dog"]) == letter


def test_shifts_move_the_right_letter_along():
    assert shifts(["w", "x", "y"], "B") == [(["w", "x", "y"], "B"), (["x", "y", "w"], "A"), (["y", "w", "x"], "C")]
    assert shifts(["w", "x"], None) == [(["w", "x"], None), (["x", "w"], None)]


def answered(rows):
    """Return the figures of (group, round, right letter, answer or None, more) of questions with three options."""
    benchmark, every = registry.find("mmbench"), []
    for i, (group, number, right, answer, more) in enumerate(rows):
        extra = {"group": group, "round": number, "choices": ["x", "y", "z"], "split": "dev"} | more
        turns = [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": right}]
        record = Record(i, "mmbench", "t", ("p.jpg",), turns, extra)
        score = 0.0 if answer is None else fair_score(benchmark, answer, record)
        every.append(Answered(record, answer or "", score))
    return benchmark.aggregate(every)


def test_a_question_is_right_if_it_is_in_every_shift():
    logic = {"category": "c", "l2-category": "logic"}
    rows = [(1, k, right, right, logic) for k, right in enumerate("BAC")]  # right in all three
    rows += [(2, k, right, "A", {"category": "d", "l2-category": "logic"}) for k, right in enumerate("ACB")]  # always A
    rows += [(3, 0, "A", "A.", {"split": "test"}), (3, 1, "C", "(C)", {"split": "test"})]  # two rounds of three
    rows += [(4, 0, "A", "A", {}), (4, 1, "C", None, {}), (4, 2, "B", "B", {})]  # a picture was lost
    rows += [(5, 0, "A", "A", {"lost": True}), (5, 1, "C", "C", {"lost": True})]  # its third row was none
    rows += [(6, k, right, "perhaps", {}) for k, right in enumerate("ACB")]
    metrics = answered(rows)
    assert (metrics.headline, metrics.value) == ("CircularEval accuracy", pytest.approx(2 / 6))  # questions 1 and 3
    # rounds: 3, 1, 2, 2, 2, 0 are right of 3 + 3 + 2 + 3 + 2 + 3
    assert metrics.parts["rounds"] == pytest.approx(10 / 16)
    assert (metrics.parts["split dev"], metrics.parts["split test"]) == (pytest.approx(1 / 5), 1)
    assert (metrics.parts["logic"], metrics.parts["category c"], metrics.parts["category d"]) == (0.5, 1, 0)
    assert metrics.notes == [
        "2 questions have fewer rounds than options",
        "1 questions lost a round (its row is none): they count as wrong",
        "3 answers name no option, and are wrong: MMBench's server asks ChatGPT what they mean",
    ]


def test_hidden_answers_claim_no_score():
    metrics = answered([(1, 0, "(hidden)", "A", {"hidden": True})])
    assert (metrics.value, metrics.notes[0][:28]) == (None, "1 questions have answers tha")
    assert answered([(1, 0, "(hidden)", "A", {"hidden": True}), (2, 0, "A", "A", {})]).value == 1


def test_the_official_table_brings_its_shifts(tiny_model, tmp_path):
    ready = prepared(official_files.mmbench(tmp_path / "files"), tmp_path / "out")
    assert (ready.rows, ready.left_out) == (5, {})
    records = {r.extra["number"]: r for r in records_of(ready)}
    assert sorted(records) == [7, 8, 1000007, 1000008, 2000008]
    asked = registry.find("mmbench").ask(records[1000008]).conversations[0]["value"]
    assert asked == (
        "<image>\nIt is late.\nWhich is 8?\nA. 2\nB. 3\nC. 1"
        "\nAnswer with the option's letter from the given choices directly."
    )
    assert records[7].conversations[0]["value"] == "<image>\nWhich is 7?\nA. a cat\nB. a dog"
    assert [records[n].conversations[1]["value"] for n in (7, 1000007, 8, 1000008, 2000008)] == [
        "B",
        "A",
        "A",
        "C",
        "B",
    ]
    # an image cell that is an index is that row's picture: one file, one cluster
    assert records[7].images == records[1000007].images != records[8].images
    assert len(list((tmp_path / "out/pictures").iterdir())) == 2
    report = run(ready, tiny_model)
    assert (report.rows, report.refused, report.metrics["headline"]) == (5, 0, "CircularEval accuracy")
    assert len(set(read_rows(report.path, EVALS)["cluster"].to_pylist())) == 2
    # again: nothing is done, nothing is written
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.[pj]*") if p.is_file()}
    assert run(prepared(tmp_path / "files", tmp_path / "out"), tiny_model).parts == 0
    after = {p: p.stat().st_mtime_ns for p in before}
    assert {p.name for p in before if after[p] != before[p]} <= {"left-out.jsonl"}


def test_a_table_without_shifts_is_shifted_and_its_submission_has_them(tiny_model, tmp_path):
    folder = official_files.mmbench(tmp_path / "files", "mmbench_test_cn_20231003.tsv", circular=False, hidden=True)
    official_files.mmbench(folder)  # the English one beside it is another benchmark
    ready = prepared(folder, tmp_path / "out", "mmbench_cn")
    asked = registry.find("mmbench_cn").ask(records_of(ready)[0]).conversations[0]["value"]
    assert asked.endswith("B. a dog\n请直接回答选项字母。")
    report = run(ready, tiny_model)
    assert (report.rows, report.metrics["value"]) == (5, None)
    names, *rows = sheet_of(official.submit(ready))
    assert [*names.values()] == ["index", "question", "A", "B", "C", "D", "prediction"]
    answers = {r["sample"]: r["answer"] for r in read_rows(report.path, EVALS).to_pylist()}
    by_number = {str(r.extra["number"]): answers[str(r.sample_id)] for r in records_of(ready)}
    assert {r["A"]: r["G"] for r in rows} == by_number
    assert [[r["A"], r["B"], r["C"], r["D"], r.get("E", "")] for r in rows] == [
        ["7", "Which is 7?", "a cat", "a dog", ""],
        ["8", "Which is 8?", "1", "2", "3"],
        ["1000007", "Which is 7?", "a dog", "a cat", ""],
        ["1000008", "Which is 8?", "2", "3", "1"],
        ["2000008", "Which is 8?", "3", "1", "2"],
    ]


def row_of(number, image, **cells):
    base = {"index": number, "question": "Which?", "hint": "", "A": "x", "B": "y", "C": "", "D": "", "answer": "B"}
    return base | {"image": image} | cells


def png(size=(8, 8)):
    sink = io.BytesIO()
    Image.new("RGB", size).save(sink, "PNG")
    return base64.b64encode(sink.getvalue()).decode()


def test_pictures_that_cannot_be_shown_make_their_questions_wrong(tiny_model, tmp_path):
    sound = png()
    eps = base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n").decode()
    images = {0: sound, 1: sound[:40] + "!" + sound[40:], 2: "", 3: eps, 4: png((9500, 9500)), 5: 77, 6: 5}
    images[7] = base64.b64encode(base64.b64decode(png((64, 64)))[:60]).decode()
    (tmp_path / "files").mkdir()
    official_files.write_table(tmp_path / "files/mmbench_dev.tsv", [row_of(n, i) for n, i in images.items()])
    ready = prepared(tmp_path / "files", tmp_path / "out")
    assert ready.rows == 16
    report = run(ready, tiny_model, max_refused=0.9)
    assert (report.rows, report.refused) == (16, 14)
    assert report.reasons == {
        "image_empty": 2,
        "image_missing": 4,
        "image_too_large": 2,
        "image_truncated": 2,
        "image_unreadable": 4,
    }
    details = set(read_refused(ready.out, "answers")["detail"].to_pylist())
    assert any("no-picture-of-row-77" in d for d in details)
    rows = [r for r in read_rows(report.path, EVALS).to_pylist() if not r["answer"]]
    assert [r["score"] for r in rows] == [0.0] * len(rows)


def test_rows_that_are_no_question_are_counted_and_their_questions_are_wrong(tmp_path):
    sound = png()
    rows = [row_of(1, sound), row_of(1000001, 1, A="y", B="x", answer="A"), row_of(2, sound, answer="Z")]
    rows += [row_of(1000002, 2, answer="A"), row_of(1, sound), row_of("two", sound), row_of(3, sound, A="None")]
    # LLaVA's options end at the first that pandas calls none
    rows += [row_of(4, sound, B="N/A", C="z", D="v", answer="A")]
    # D is right and empty: no answer could be
    rows += [row_of(5, sound, answer="D")]
    (tmp_path / "files").mkdir()
    path = tmp_path / "files/MMBench_DEV_EN.tsv"
    official_files.write_table(path, rows)
    path.write_bytes(path.read_bytes() + b"6\tcut\n7\t\xff\t\tx\ty\t\t\tA\t" + sound.encode() + b"\n")
    ready = prepared(tmp_path / "files", tmp_path / "out", max_refused=0.9)
    assert ready.left_out == {"bad_text": 1, "duplicate": 1, "not_an_object": 1, "unscorable": 4}
    told = [json.loads(line)["detail"] for line in (tmp_path / "out/left-out.jsonl").read_text().splitlines()]
    assert any("row 10: it has 2 cells under 9 names" in d for d in told)
    assert any("answer is D, and option D of row 5 is empty" in d for d in told)
    records = {r.extra["number"]: r for r in records_of(ready)}
    assert sorted(records) == [1, 4, 1000001, 1000002]
    assert records[4].extra["choices"] == ["x"]
    assert [records[n].extra.get("lost", False) for n in (1, 1000001, 1000002)] == [False, False, True]


def test_tables_that_are_none_are_named(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    with pytest.raises(InputError, match=r"one table of mmbench .* holds 0\."):
        prepared(folder, tmp_path / "out")
    for name in ("mmbench_dev_20230712.tsv", "mmbench_test_en_20231003.tsv"):
        official_files.mmbench(folder, name)
    with pytest.raises(InputError, match=r"holds 2: mmbench_dev_20230712\.tsv, mmbench_test"):
        prepared(folder, tmp_path / "out")
    (folder / "mmbench_test_en_20231003.tsv").unlink()
    (folder / "mmbench_dev_20230712.tsv").write_text("index\tquestion\tA\n")
    with pytest.raises(InputError, match="no column image, B"):
        prepared(folder, tmp_path / "out")
    (folder / "mmbench_dev_20230712.tsv").write_text("index\tquestion\tA\tB\timage\tA\n")
    with pytest.raises(InputError, match="names a column twice: A"):
        prepared(folder, tmp_path / "out")
    # a quotation mark that never ends takes the rest of the file for one cell
    endless = '1\t"W?\tx\ty\tz\n' + "2\tW?\tx\ty\tz\n" * 2000
    (folder / "mmbench_dev_20230712.tsv").write_text("index\tquestion\tA\tB\timage\n" + endless)
    with pytest.raises(InputError, match="a quotation mark does not end"):
        prepared(folder, tmp_path / "out")


def test_quoted_cells_hold_tabs_lines_and_marks(tmp_path):
    (tmp_path / "t.tsv").write_bytes(b'\xef\xbb\xbfindex\tquestion\timage\r\n1\t"a\tb\nsaid ""c"""\t\r\n2\td\t1\r\n')
    first, second = rows_of(str(tmp_path / "t.tsv"), str(tmp_path / "p"), ("question",))
    assert first["question"] == 'a\tb\nsaid "c"'
    assert (second["question"], second["image"]) == ("d", "1")


def test_a_record_of_a_pool_needs_its_choices():
    turns = [{"from": "human", "value": "Which?\nA. x\nB. y"}, {"from": "gpt", "value": "B"}]
    for extra, words in (({}, "wants the record's `choices`"), ({"choices": [1]}, "list of texts")):
        with pytest.raises(RefusedError, match=words):
            registry.find("mmbench").check(Record(1, "s", "t", (), turns, extra))


def test_a_workbook_holds_any_text(tmp_path):
    texts = ['<a> & "b"', "line\nline\ttab", " spaces ", "图\U0001f431", "bell\x07", "=1+1", "x" * 40_000]
    write_xlsx(str(tmp_path / "a.xlsx"), ["n", "text"], [[i, t] for i, t in enumerate(texts)])
    rows = sheet_of(tmp_path / "a.xlsx")[1:]
    assert [r["B"] for r in rows] == [*texts[:4], "bell\ufffd", "=1+1", "x" * 32_767]
    assert [r["A"] for r in rows] == [str(i) for i in range(len(texts))]
    first = (tmp_path / "a.xlsx").read_bytes()
    write_xlsx(str(tmp_path / "a.xlsx"), ["n", "text"], [[i, t] for i, t in enumerate(texts)])
    assert (tmp_path / "a.xlsx").read_bytes() == first
