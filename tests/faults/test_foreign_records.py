"""One record that cannot be read is a refused row in every format: it ends no ingest, and the pool can be read."""

import io
import json
import tarfile

import pytest
from foreign import HUGE, VALUES, vinnow
from vinnow.pool.reader import Pool
from vinnow.store.tables import REFUSED, read_rows

SOUND = [
    {"id": str(i), "conversations": [{"from": "human", "value": f"q{i}"}, {"from": "gpt", "value": "a"}]}
    for i in range(20)
]
TALK = '"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]'


def nested(depth, key="extra", talk=TALK):
    return f'{{"id": "x", {talk}, "{key}": {"[" * depth}{"]" * depth}}}'


# each must be refused; a depth that one stack could take and another not is refused as well
REFUSED_ROWS = {
    **{f"deep {n}": nested(n) for n in (150, 500, 900, 950, 980, 995, 1000, 3000, 100_000)},
    **{f"deep picture {n}": nested(n, "image") for n in (500, 900, 980)},
    **{f"deep source {n}": nested(n, "source") for n in (500, 900, 980)},
    **{f"deep turns {n}": f'{{"conversations": {"[" * n}{"]" * n}}}' for n in (500, 900, 980)},
    **{f"deep object {n}": '{"a": ' * n + "1" + "}" * n for n in (500, 900, 1000, 5000)},
    **{f"turns {name}": f'{{"conversations": {text}}}' for name, text in VALUES.items() if name != "nested"},
}
KEPT = {
    "huge number": f'{{"id": {HUGE}, {TALK}, "extra": {HUGE}}}',
    "huge fraction": f'{{"a": 0.{HUGE}, {TALK}}}',
    "nan": f'{{"a": NaN, {TALK}}}',
    "surrogate": f'{{"a": "\\ud800", {TALK}}}',
    "99 deep": nested(98),
}


def as_json(texts, folder):
    (folder / "r.json").write_text("[" + ",\n".join(texts) + "]")
    return [folder / "r.json"]


def as_lines(texts, folder):
    (folder / "r.jsonl").write_text("\n".join(texts) + "\n")
    return [folder / "r.jsonl"]


def as_wrapped(texts, folder):
    (folder / "r.json").write_text(f'{{"data": [{",".join(texts)}]}}')
    return [folder / "r.json"]


def as_named(texts, folder):
    (folder / "r.json").write_text("{" + ",".join(f'"k{i}": {t}' for i, t in enumerate(texts)) + "}")
    return [folder / "r.json"]


def as_tar(texts, folder):
    with tarfile.open(folder / "r.tar", "w") as tar:
        for number, text in enumerate(texts):
            info = tarfile.TarInfo(f"{number:04}.json")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return [folder / "r.tar"]


FORMS = [as_json, as_lines, as_wrapped, as_named, as_tar]


def ingested(source, folder):
    """Ingest, and return (rows, refusals); the doctor must agree."""
    said = vinnow("ingest", *source, "--out", folder / "pool", "--set", "max_refused=0.5")
    assert said.code == 0, said.text + said.trace
    doctor = vinnow("doctor", *source)
    refused = read_rows(folder / "pool/refused.parquet", REFUSED)
    assert doctor.code == (1 if refused.num_rows else 0), doctor.text + doctor.trace
    return Pool(str(folder / "pool")), refused


def read_deep_down(pool, frames=200):
    """Read all records from so many calls down, as inside a worker."""
    return read_deep_down(pool, frames - 1) if frames else [r for batch in pool.iter_batches(7) for r in batch]


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", REFUSED_ROWS)
@pytest.mark.parametrize("place", [0, 11])
def test_it_is_a_refused_row(tmp_path, form, name, place):
    if form in (as_wrapped, as_named) and name.startswith("turns"):
        pytest.skip("nothing shows that it is a record")
    texts = [json.dumps(r) for r in SOUND]
    texts.insert(place, REFUSED_ROWS[name])
    if form is as_wrapped and name in ("deep object 500", "deep object 900") and not place:
        pytest.skip("the first one shows what the list holds")
    if form is as_named and name.startswith("deep") and "turns" not in name and int(name.split()[-1]) < 960:
        pytest.skip("a value that can be read is a field of the file's own object")
    pool, refused = ingested(form(texts, tmp_path), tmp_path)
    assert refused["row"].to_pylist() == [place]
    assert pool.rows == len(SOUND)
    assert len(read_deep_down(pool)) == pool.rows


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", KEPT)
def test_what_is_odd_and_sound_is_kept(tmp_path, form, name):
    texts = [*(json.dumps(r) for r in SOUND), KEPT[name]]
    pool, refused = ingested(form(texts, tmp_path), tmp_path)
    assert refused.num_rows == 0
    assert pool.rows == len(SOUND) + 1
    assert len(read_deep_down(pool)) == pool.rows


def test_a_problem_of_scienceqa(tmp_path):
    problem = {
        "question": "q",
        "choices": ["a", "b"],
        "answer": 0,
        "hint": "",
        "image": None,
        "lecture": "",
        "solution": "",
    }
    for text, lost in (("[" * 1000 + "]" * 1000, 1), (json.dumps(problem)[:-1] + f', "x": {HUGE}}}', 0), ("7", 1)):
        rows = {str(i): problem for i in range(9)}
        (tmp_path / "problems.json").write_text(json.dumps(rows)[:-1] + f', "9": {text}}}')
        (tmp_path / "pid_splits.json").write_text(json.dumps({"train": [*rows, "9"]}))
        out = tmp_path / f"pool{len(text)}"
        said = vinnow("ingest", tmp_path, "--split", "train", "--out", out, "--set", "max_refused=0.5")
        assert said.code == 0, said.text + said.trace
        assert read_rows(out / "refused.parquet", REFUSED).num_rows == lost
