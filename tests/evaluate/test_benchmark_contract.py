"""The laws of a benchmark, for all registered ones: a new file in `benchmarks/` is adopted unnamed."""

import copy

import pyarrow as pa
import pytest
from vinnow.evaluate import registry
from vinnow.evaluate.config import EvalConfig
from vinnow.evaluate.run import evaluate
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.records import Record
from vinnow.store.errors import InputError
from vinnow.store.files import write_json
from vinnow.store.tables import EVALS, read_rows

NAMES = registry.names()
each = pytest.mark.parametrize("name", NAMES)
# questions as pools have them; a benchmark whose records are others brings one (`example`)
QUESTIONS = [
    ("Is it red?", "yes"),
    ("Is it blue?", "No."),
    ("What?\nA. one\nB. two", "B"),
    ("Which one?", "a cat"),
    ("What is in the picture?", "图 of \U0001f431"),
]
TEXTS = [
    "",
    " ",
    "yes",
    "No, there is not.",
    "B",
    "B. two",
    "The answer is B.",
    "a cat",
    "\n\x00",
    "图\U0001f431",
    "x" * 9999,
]


def records(name):
    """Return the sample records that a benchmark can ask."""
    own = registry.find(name).example
    samples = [Record(i, "s", "t", (), turns(q, a)) for i, (q, a) in enumerate(QUESTIONS)]
    return [r for r in [*samples, *([own] if own else [])] if can_ask(name, r)]


def turns(question, answer):
    said = ("human", question), ("gpt", answer), ("human", "and then?"), ("gpt", "nothing")
    return [{"from": role, "value": text} for role, text in said]


def can_ask(name, record):
    try:
        registry.find(name).check(record)
    except InputError:  # and no other kind of error
        return False
    return True


def test_the_suite_sees_every_benchmark():
    assert {"exact_match", "short_answer", "yes_no", "scienceqa", "option_letter"} <= set(NAMES)
    with pytest.raises(InputError, match="did you mean 'exact_match'"):
        registry.find("exact_mach")


@each
def test_any_text_is_an_answer_and_the_reference_is_a_right_one(name):
    benchmark = registry.find(name)
    assert records(name)
    for record in records(name):
        scores = [benchmark.score(text, record) for text in TEXTS]
        assert scores == [benchmark.score(text, record) for text in TEXTS]
        assert all(type(s) is float and 0 <= s <= 1 for s in scores)
        assert benchmark.score(record.conversations[1]["value"], record) == 1


@each
def test_the_first_question_alone_is_asked_and_the_record_stays_as_it_is(name):
    benchmark = registry.find(name)
    for record in records(name):
        before = copy.deepcopy(record)
        asked = benchmark.ask(record)
        assert record == before
        assert len(asked.conversations) == 2
        assert asked.conversations[0]["value"].startswith(record.conversations[0]["value"])
        assert asked.conversations[0]["value"].endswith(benchmark.suffix)
        assert benchmark.ask(asked) == asked


@each
def test_it_fills_the_table(name, tiny_model, tmp_path):
    rows = [{"id": str(i), "conversations": r.conversations} | r.extra for i, r in enumerate(records(name))]
    write_json(str(tmp_path / "test.json"), rows)
    ingest(IngestConfig(source=str(tmp_path / "test.json")), str(tmp_path / "pool"))
    config = EvalConfig(
        model=tiny_model, pool=str(tmp_path / "pool"), run="r", benchmark=name, max_new_tokens=2, max_len=512
    )
    report = evaluate(config, str(tmp_path / "out"), here=True)
    table = read_rows(report.path, EVALS)
    assert table.num_rows == report.rows == len(rows)
    assert report.refused == 0
    assert table["benchmark"].unique().to_pylist() == [name]
    assert table["correct"].equals(pa.chunked_array([[s == 1.0 for s in table["score"].to_pylist()]]))


def test_yes_no_and_letters_refuse_what_no_answer_could_be_right_for(tiny_pool, tiny_model, tmp_path):
    said = {"yes_no": "40.0% .* unscorable 24", "option_letter": "not one row could be asked.* First: no option lines"}
    for name, words in said.items():
        config = EvalConfig(model=tiny_model, pool=tiny_pool, run="r", benchmark=name)
        with pytest.raises(InputError, match=words):
            evaluate(config, str(tmp_path / name), here=True)
    letters = registry.find("option_letter")
    letters.check(Record(1, "s", "t", (), turns("What?\nA. one\nB. two", "B")))
    for wrong in ("C", "two", ""):
        with pytest.raises(InputError, match="wants one of the letters AB"):
            letters.check(Record(1, "s", "t", (), turns("What?\nA. one\nB. two", wrong)))


def test_a_folder_of_ones_own_is_scanned_and_an_unfit_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "half.py").write_text("class Half:\n    name = 'half'\nBENCHMARK = Half\n")
    monkeypatch.setenv(registry.VARIABLE, str(tmp_path))
    with pytest.raises(InputError, match=r"half\.py: Half lacks suffix, ask, check, score"):
        registry.names()
