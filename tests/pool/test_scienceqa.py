"""ScienceQA: LLaVA's two layouts against texts written by hand, wherever the pictures lie."""

import json

import pytest
from pictures import make_records
from vinnow.pool.examine import read_records
from vinnow.pool.formats.registry import detect
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError
from vinnow.store.tables import REFUSED, read_rows

PROBLEMS = {
    "7": {
        "question": "Which is  it?",
        "choices": ["a cat", "a dog"],
        "answer": 1,
        "hint": "Look.  Question: no.",
        "image": "image.png",
        "lecture": "Cats\nand dogs.",
        "solution": "It barks.",
        "split": "test",
        "subject": "natural science",
        "topic": "biology",
        "category": "c",
        "grade": "grade2",
        "skill": "s",
        "task": "closed choice",
    }
}
PROBLEMS["8"] = PROBLEMS["7"] | {
    "image": None,
    "hint": "",
    "answer": 0,
    "lecture": "",
    "solution": "",
    "question": "Q?",
}
PROBLEMS["9"] = {"question": "no more than this"}
# by hand, from spec LLaVA §1.3
SHOWN = {
    "qcm-lea": [
        (
            "Which is it?\nContext: Look. no.\nOptions: (A) a cat (B) a dog",
            "Cats\nand dogs. It barks. The answer is B.",
        ),
        # three spaces become two in one pass, of which the label takes one
        ("Q?\nContext: N/A\nOptions: (A) a cat (B) a dog", " The answer is A."),
    ],
    "qcm": [
        ("Which is it?\nContext: Look. no.\nOptions: (A) a cat (B) a dog", "The answer is B."),
        ("Q?\nContext: N/A\nOptions: (A) a cat (B) a dog", "The answer is A."),
    ],
    "test": [
        ("Context: Look.  Question: no.\nWhich is  it?\nA. a cat\nB. a dog", "B"),
        ("Q?\nA. a cat\nB. a dog", "A"),
    ],
}


@pytest.mark.parametrize("layout", list(SHOWN))
@pytest.mark.parametrize("place", ["images/test/7", "images/7", "7"])
def test_scienceqa(tmp_path, layout, place):
    folder = tmp_path / "sqa"
    (folder / place).mkdir(parents=True)
    make_records(1)[1]["pics/0.png"].save(folder / place / "image.png")
    (folder / "problems.json").write_text(json.dumps(PROBLEMS))
    (folder / "pid_splits.json").write_text(json.dumps({"test": ["7", "8", "9", "10"], "train": []}))
    assert detect(str(folder)).name == "scienceqa"
    ingest(IngestConfig(source=str(folder), split="test", layout=layout, max_refused=1), str(tmp_path / "made"))
    pool = Pool(str(tmp_path / "made"))
    pictured, text = pool.take(pool.ids())
    asked, answer = SHOWN[layout][0]
    assert [t["value"] for t in pictured.conversations] == [f"<image>\n{asked}", answer]
    assert tuple(t["value"] for t in text.conversations) == SHOWN[layout][1]
    assert pictured.images == (("test/" if "test" in place else "") + "7/image.png",)
    assert (pictured.source, pictured.task, text.images) == ("scienceqa", "natural science", ())
    kept = ("subject", "topic", "category", "grade", "skill", "choices", "answer", "solution")
    assert {k: pictured.extra[k] for k in kept} == {k: PROBLEMS["7"][k] for k in kept}
    refused = read_rows(tmp_path / "made/refused.parquet", REFUSED).to_pylist()
    assert [r["reason"] for r in refused] == ["no_conversations", "not_an_object"]


def test_scienceqa_needs_a_split(tmp_path):
    (tmp_path / "problems.json").write_text("{}")
    (tmp_path / "pid_splits.json").write_text('{"train": [], "minival": []}')
    for split, words in ((None, "Known: minival, train"), ("trian", "did you mean 'train'")):
        with pytest.raises(InputError, match=words):
            list(read_records(IngestConfig(source=str(tmp_path), split=split)))
