"""Official files to a pool, answers and official figures, on the tiny model; killed, rerun, damaged, mixed up."""

import json
from pathlib import Path

import official_files
import pytest
from vinnow.evaluate import official, registry
from vinnow.evaluate.config import EvalConfig
from vinnow.evaluate.run import evaluate
from vinnow.evaluate.vqa import evalai
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError
from vinnow.store.tables import EVALS, read_rows


def run(name, folder, model, out, **changes):
    prepared = official.prepare(name, str(folder), None, str(out), changes.get("max_refused", 0.05))
    fields = {"model": model, "pool": prepared.pool, "run": "r", "benchmark": name, "max_new_tokens": 3} | changes
    return prepared, evaluate(EvalConfig.parse(fields), str(out), here=True)


def records_of(prepared):
    pool = Pool(prepared.pool)
    return pool.take(pool.ids())


def test_pope_from_its_three_files(tiny_model, tmp_path):
    folder = official_files.pope(tmp_path / "pope")
    prepared, report = run("pope", folder, tiny_model, tmp_path / "out")
    assert (prepared.rows, prepared.left_out, report.rows, report.refused) == (12, {}, 12, 0)
    assert report.rows_by_task == {"adversarial": 4, "popular": 4, "random": 4}
    saved = json.loads((tmp_path / "out/evals.json").read_text())["metrics"]
    assert (saved["headline"], saved["value"]) == ("mean F1", report.metrics["value"])
    assert saved["parts"].keys() >= {"random F1", "popular yes ratio", "adversarial accuracy"}
    record = records_of(prepared)[0]
    assert record.images == ("COCO_val2014_0.jpg",)
    assert record.conversations[0]["value"] == "<image>\nIs there a dog 0 in the image?"
    assert (record.extra["question_id"], record.extra["category"]) == (1, "adversarial")
    # what is there is not done again, and other files are refused
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.parquet")}
    assert run("pope", folder, tiny_model, tmp_path / "out")[1].metrics == report.metrics
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.parquet")} == before
    official_files.pope(folder, n=3)
    with pytest.raises(InputError, match="questions of other files"):
        run("pope", folder, tiny_model, tmp_path / "out")


def test_what_cannot_be_asked_is_wrong_and_what_is_no_question_is_listed(tiny_model, tmp_path):
    folder = official_files.pope(tmp_path / "pope")
    (folder / "val2014/COCO_val2014_1.jpg").unlink()
    path = folder / "coco_pope_random.json"
    rows = path.read_text().splitlines()
    bad = [
        '{"question_id": 1, "image": "COCO_val2014_0.jpg", "text": "Again?", "label": "no"}',
        "{cut",
        rows[0].replace('"no"', '"maybe"').replace('": 1', '": 9'),
    ]
    path.write_text("\n".join([*rows[::-1], *bad]))
    with pytest.raises(InputError, match=r"files of pope .*not_an_object 1, unscorable 1; .*left-out.jsonl"):
        run("pope", folder, tiny_model, tmp_path / "out")
    prepared, report = run("pope", folder, tiny_model, tmp_path / "out", max_refused=0.5)
    assert prepared.left_out == {"duplicate": 1, "not_an_object": 1, "unscorable": 1}
    listed = [json.loads(line) for line in (tmp_path / "out/left-out.jsonl").read_text().splitlines()]
    assert [r["reason"] for r in listed] == ["duplicate", "not_an_object", "unscorable"]
    assert "coco_pope_random.json, row 5: question_id 1 is there twice" in listed[0]["detail"]
    assert (report.rows, report.refused, report.reasons) == (12, 3, {"image_missing": 3})
    lost = [r for r in read_rows(report.path, EVALS).to_pylist() if r["reference"] == "yes" and r["answer"] == ""]
    assert [r["score"] for r in lost] == [0.0] * len(lost)
    assert len(lost) >= 3
    # the label goes with its question, although the file's order is another one
    by_id = {(r.task, r.extra["question_id"]): r.conversations[1]["value"] for r in records_of(prepared)}
    assert [by_id["random", i] for i in (1, 2, 3, 4)] == ["no", "yes", "no", "yes"]


def test_a_pool_that_was_cut_off_is_made_anew(tiny_model, tmp_path):
    folder = official_files.pope(tmp_path / "pope")
    out = tmp_path / "out"
    first = official.prepare("pope", str(folder), None, str(out))
    digest = Pool(first.pool).digest
    (out / "pool/pool.json").unlink()
    assert Pool(official.prepare("pope", str(folder), None, str(out)).pool).digest == digest
    (out / "questions.jsonl").unlink()
    with pytest.raises(InputError, match="holds a pool made otherwise"):  # by the time of its source
        official.prepare("pope", str(folder), None, str(out))


def test_files_that_are_not_there_are_named(tiny_model, tmp_path):
    folder = official_files.pope(tmp_path / "pope")
    (folder / "coco_pope_popular.json").unlink()
    with pytest.raises(InputError, match=r"lacks coco_pope_popular\.json"):
        official.prepare("pope", str(folder), None, str(tmp_path / "out"))
    with pytest.raises(InputError, match="'exact_match' has no official files"):
        official.prepare("exact_match", str(folder), None, str(tmp_path / "out"))
    with pytest.raises(InputError, match="lies in the output folder"):
        official.prepare("pope", str(folder), None, str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        official.prepare("pope", str(official_files.pope(folder)), None, str(tmp_path / "mine"))
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_scienceqa_in_the_layout_that_llava_ships(tiny_model, tmp_path):
    prepared, report = run("scienceqa", official_files.scienceqa(tmp_path / "sqa"), tiny_model, tmp_path / "out")
    asked = [r.conversations[0]["value"] for r in records_of(prepared)]
    assert asked == [
        "<image>\nWhich is 1?\nA. one\nB. two",
        "Context: It rained.\nWhich is 2?\nA. one\nB. two",
        "Which is 3?\nA. one\nB. two",
    ]
    assert [r.conversations[1]["value"] for r in records_of(prepared)] == ["B"] * 3
    assert report.metrics["headline"] == "image accuracy"
    assert report.metrics["value"] == report.image_accuracy
    assert report.metrics["parts"]["accuracy"] == report.accuracy


def change(path, edit):
    """Write a JSON file anew, as `edit` leaves its value."""
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def questions_of(name, folder, out):
    """Return the records that a benchmark makes of its files, and the reasons for which rows are none."""
    prepared = official.prepare(name, str(folder), None, str(out), 0.9)
    return [json.loads(line) for line in (out / "questions.jsonl").read_text().splitlines()], prepared.left_out


def test_scienceqa_s_pictures_are_found_though_the_first_is_not(tmp_path):
    folder = official_files.scienceqa(tmp_path / "sqa")
    (folder / "images/test/1/image.png").unlink()
    official_files.picture(folder / "images/test/3/image.png")
    official_files.picture(folder / "images/test/2/image.png")
    # problem 2 says that it is of another split, and lies where the test split's pictures do
    change(
        folder / "problems.json",
        lambda p: [p["2"].update(image="image.png", split="train"), p["3"].update(image="image.png")],
    )
    change(folder / "pid_splits.json", lambda s: s["test"].append("1"))
    rows, lost = questions_of("scienceqa", folder, tmp_path / "out")
    assert [r["image"] for r in rows] == [f"test/{i}/image.png" for i in (1, 2, 3)]
    assert lost == {"duplicate": 1}


def repeated(text, key, first):
    """Return JSON in which the first object with `key` names it once more, with `first` before the other value."""
    return text.replace(f'"{key}"', f'"{key}": {json.dumps(first)}, "{key}"', 1)


@pytest.mark.parametrize(
    ("name", "file", "key", "lost"),
    [
        ("gqa", "testdev_balanced_questions.json", "structural", {"key_twice": 1}),
        ("vqav2_val", "v2_mscoco_val2014_annotations.json", "answer", {"key_twice": 1}),
        ("vqav2_val", "v2_OpenEnded_mscoco_val2014_questions.json", "question", {"key_twice": 1}),
        ("textvqa", "TextVQA_0.5.1_val.json", "answers", {"key_twice": 1, "unscorable": 1}),
        ("textvqa", "llava_textvqa_val_v051_ocr.jsonl", "text", {"key_twice": 1, "unscorable": 1}),
        ("seed", "SEED-Bench.json", "answer", {"key_twice": 1, "unsupported_media": 1}),
    ],
)
def test_a_row_that_names_a_key_twice_is_refused(name, file, key, lost, tmp_path):
    folder = getattr(official_files, name)(tmp_path / "files")
    (folder / file).write_text(repeated((folder / file).read_text(), key, "else"))
    rows, told = questions_of(name.removesuffix("_val"), folder, tmp_path / "out")
    assert (len(rows), told) == (1, lost)


def test_a_file_that_names_a_key_twice_is_refused(tmp_path):
    folder = official_files.gqa(tmp_path / "gqa")
    path = folder / "testdev_balanced_questions.json"
    path.write_text(path.read_text()[:-1] + ', "200": {"imageId": "n1", "question": "?", "answer": "blue"}}')
    with pytest.raises(InputError, match=r"balanced_questions\.json' names the key '200' twice"):
        questions_of("gqa", folder, tmp_path / "a")
    folder = official_files.seed(tmp_path / "seed")
    path = folder / "SEED-Bench.json"
    path.write_text(repeated(path.read_text(), "Scene Understanding", 2))
    with pytest.raises(InputError, match=r"question_type: .* names the key 'Scene Understanding' twice"):
        questions_of("seed", folder, tmp_path / "b")


def test_what_is_there_twice_is_asked_once(tmp_path):
    folder = official_files.textvqa(tmp_path / "textvqa")
    path = folder / "llava_textvqa_val_v051_ocr.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[0])
    rows, lost = questions_of("textvqa", folder, tmp_path / "a")
    assert (len(rows), lost) == (2, {"duplicate": 1, "unscorable": 1})
    # two people asked the same of a picture: two questions
    again = {"question_id": 9, "image_id": "pic0", "question": "What does it say?", "answers": ["go"] * 10}
    change(folder / "TextVQA_0.5.1_val.json", lambda v: v["data"].append(again))
    rows, lost = questions_of("textvqa", folder, tmp_path / "b")
    assert (len(rows), lost) == (3, {"unscorable": 1})
    # one question, two rows of answers: which was meant?
    change(folder / "TextVQA_0.5.1_val.json", lambda v: v["data"].append(again))
    rows, lost = questions_of("textvqa", folder, tmp_path / "c")
    assert (len(rows), lost) == (1, {"duplicate": 2, "unscorable": 1})
    folder = official_files.vqav2_val(tmp_path / "vqav2")
    change(folder / "v2_mscoco_val2014_annotations.json", lambda v: v["annotations"].append(v["annotations"][0]))
    rows, lost = questions_of("vqav2", folder, tmp_path / "d")
    assert ([r["question_id"] for r in rows], lost) == ([1], {"duplicate": 1})
    folder = official_files.vizwiz(tmp_path / "vizwiz", False)
    change(folder / "val.json", lambda v: v.append(v[0]))
    rows, lost = questions_of("vizwiz", folder, tmp_path / "e")
    assert (len(rows), lost) == (2, {"duplicate": 1})
    folder = official_files.mme(tmp_path / "mme")
    path = folder / "OCR.txt"
    path.write_text(path.read_text() + path.read_text().splitlines()[1])
    rows, lost = questions_of("mme", folder, tmp_path / "f")
    assert (len(rows), lost) == (28, {"duplicate": 1})
    assert "OCR/OCR.txt, line 3: the question" in (tmp_path / "f/left-out.jsonl").read_text()


def test_textvqa_is_matched_by_picture_and_question(tiny_model, tmp_path):
    folder = official_files.textvqa(tmp_path / "textvqa")
    prepared, report = run("textvqa", folder, tiny_model, tmp_path / "out", max_refused=0.5)
    assert (report.rows, prepared.left_out) == (2, {"unscorable": 1})
    first, second = records_of(prepared)
    assert (first.extra["answers"], second.conversations[1]["value"]) == (["stop"] * 10, "blue")
    benchmark = registry.find("textvqa")
    # LLaVA's text has the suffix already: it is asked once
    assert benchmark.ask(first).conversations[0]["value"].count("single word or phrase") == 1
    assert benchmark.score("Red", second) == pytest.approx(0.9)
    assert report.metrics["headline"] == "accuracy"


def test_gqa_vqav2_and_vizwiz_with_their_answers(tiny_model, tmp_path):
    prepared, report = run("gqa", official_files.gqa(tmp_path / "gqa"), tiny_model, tmp_path / "a")
    assert [r.images for r in records_of(prepared)] == [("n1.jpg",)] * 2
    assert report.metrics["parts"].keys() == {"open", "binary"}
    prepared, report = run("vqav2", official_files.vqav2_val(tmp_path / "val"), tiny_model, tmp_path / "b")
    # annotations are matched by id, not by their order
    assert [r.conversations[1]["value"] for r in records_of(prepared)] == ["thing 1", "thing 2"]
    assert (report.refused, official.submit(prepared)) == (0, None)
    prepared, report = run("vizwiz", official_files.vizwiz(tmp_path / "viz", False), tiny_model, tmp_path / "c")
    asked = registry.find("vizwiz").ask(records_of(prepared)[0]).conversations[0]["value"]
    assert asked == (
        "<image>\nWhat?\nWhen the provided information is insufficient, respond with 'Unanswerable'."
        "\nAnswer the question using a single word or phrase."
    )
    assert (report.refused, registry.find("vizwiz").score("Unanswerable.", records_of(prepared)[0])) == (0, 1)


def test_submissions_answer_the_whole_list_of_ids(tiny_model, tmp_path):
    prepared, report = run("vqav2", official_files.vqav2_test(tmp_path / "vqa"), tiny_model, tmp_path / "a")
    assert report.metrics["value"] is None
    assert official.submit(prepared) == f"{prepared.out}/submission.json"
    rows = json.loads((Path(prepared.out) / "submission.json").read_text())
    (answer,) = (r["answer"] for r in read_rows(report.path, EVALS).to_pylist())
    assert rows == [{"question_id": 11, "answer": ""}, {"question_id": 12, "answer": evalai(answer)}]
    folder = official_files.vizwiz(tmp_path / "viz", True)
    prepared, report = run("vizwiz", folder, tiny_model, tmp_path / "b")
    assert official.submit(prepared) == f"{prepared.out}/submission.json"
    rows = json.loads((Path(prepared.out) / "submission.json").read_text())
    assert [r["image"] for r in rows] == ["VizWiz_0.jpg", "VizWiz_1.jpg"]
    (folder / "test.json").write_text("[]")
    with pytest.raises(InputError, match="it holds 2 of them"):
        official.prepare("vizwiz", str(folder), None, str(tmp_path / "c"))


def test_mme_in_its_three_layouts(tiny_model, tmp_path):
    folder = official_files.mme(tmp_path / "mme")
    prepared, report = run("mme", folder, tiny_model, tmp_path / "out")
    assert (report.rows, report.refused, len(report.rows_by_task)) == (28, 0, 14)
    images = {r.task: r.images[0] for r in records_of(prepared)}
    assert [images[c] for c in ("artwork", "OCR", "count")] == ["artwork/images/0.jpg", "OCR/0.jpg", "count/0.png"]
    assert records_of(prepared)[0].conversations[0]["value"] == "<image>\nIs it yes?"
    # the untrained model's words; all pictures have their two questions
    assert report.metrics["notes"] == ["28 answers begin with neither yes nor no, and are wrong"]
    (folder / "count/0.txt").unlink()
    with pytest.raises(InputError, match="lacks MME's categories count"):
        official.prepare("mme", str(folder), None, str(tmp_path / "b"))


def test_seed_asks_of_pictures_and_counts_videos(tiny_model, tmp_path):
    prepared, report = run("seed", official_files.seed(tmp_path / "seed"), tiny_model, tmp_path / "out")
    assert (report.rows, report.refused, prepared.left_out) == (2, 0, {"unsupported_media": 1})
    assert report.metrics["parts"].keys() == {"Scene Understanding"}
    record = records_of(prepared)[0]
    assert record.conversations[0]["value"] == "<image>\nWhich?\nA. the a\nB. the b\nC. the c\nD. the d"
    # the letter and nothing else, as the official script has it
    scores = [registry.find("seed").score(a, record) for a in ("B", "B.", "b", "B. the b", "AB", "")]
    assert scores == [1, 0, 0, 0, 0, 0]
