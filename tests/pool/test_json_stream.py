"""The stream reads what `json.load` reads, in bounded memory, and says where a broken file breaks."""

import gzip
import json
import os
import random
import tracemalloc

import pytest
from vinnow.pool import json_stream
from vinnow.pool.checks import RefusedError
from vinnow.pool.json_stream import iter_records
from vinnow.store.errors import InputError


def write(path, text) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def awkward(n: int, lone: str) -> list:
    rng = random.Random(3)
    texts = ['say "hi" \\ [1,2]}', "línea\nnueva", "貓🐱", "\u2028]", "", "x" * 3000, lone, "tail\\"]
    return [{"id": i if i % 3 else f"s{i}", "v": [rng.choice(texts), i * 1.5, None, {"k": [True]}]} for i in range(n)]


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("form", ["compact", "indented", "ascii", "jsonl", "bom"])
def test_reads_what_json_reads(tmp_path, monkeypatch, chunk, form):
    """A chunk of one byte puts every token, escape and UTF-8 sequence on a chunk's edge."""
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    # a lone surrogate has no UTF-8: only the form with escapes can hold it
    records = awkward(12, "\ud83d" if form == "ascii" else "ok")
    text = {
        "compact": lambda: json.dumps(records, ensure_ascii=False, separators=(",", ":")),
        "indented": lambda: "\n " + json.dumps(records, ensure_ascii=False, indent=3) + " \n",
        "ascii": lambda: json.dumps(records),
        "jsonl": lambda: "\n".join(json.dumps(r, ensure_ascii=False) for r in records) + "\r\n\n",
        "bom": lambda: "\ufeff" + json.dumps(records, ensure_ascii=False),
    }[form]()
    assert list(iter_records(write(tmp_path / "r.json", text))) == records


@pytest.mark.parametrize(
    ("text", "expected"),
    [("[]", []), ("[ ]\n", []), ('[1, -2.5e3, "a", null]', [1, -2500.0, "a", None]), ("[12]", [12])],
)
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_arrays_of_other_values(tmp_path, monkeypatch, chunk, text, expected):
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    assert list(iter_records(write(tmp_path / "r.json", text))) == expected


def test_compressed_and_without_a_newline_at_the_end(tmp_path):
    path = tmp_path / "r.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n{"a": 2}'))
    assert list(iter_records(str(path))) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"a": 1}, {"a": "tex', ["row 1", "cut off"]),
        ('[{"a": 1}, {"a": 2}', ["row 2", "cut off"]),
        ('[{"a": 1},', ["row 1", "cut off"]),
        ('[{"a": 1} {"a": 2}]', ["row 1", "expected ','"]),
        ('[{"a": 1}] trailing', ["behind the array", "trailing"]),
        ('[{"a": 1}, {a: 2}]', ["row 1", "property name"]),
        ('"text"', ["JSON array", "JSONL", "'\"' at the start"]),
        ("  \n", ["an empty file"]),
        ("", ["an empty file"]),
        (b'[{"a": "' + b"x" * 100 + b'\xff"}]', ["byte 108", "UTF-8"]),
        (b"\xef\xbb\xbf[\xff]", ["byte 4", "UTF-8"]),
        ('[{"a": 1}]'.encode("utf-16"), ["byte 0", "UTF-8"]),
        ("[" * 200_000, ["row 0", "cannot be read"]),
    ],
)
def test_broken_files_say_where(tmp_path, text, words):
    with pytest.raises(InputError) as error:
        list(iter_records(write(tmp_path / "r.json", text)))
    assert all(w in str(error.value) for w in ["r.json", *words]), str(error.value)


TALK = {"conversations": [{"from": "human", "value": "[q}"}, {"from": "gpt", "value": "a"}]}
THREE = [{"id": k} | TALK for k in "abc"]


@pytest.mark.parametrize("chunk", [1, 1 << 20])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"data": THREE}),
        '{"n": 3, "data": [\n' + ",\n".join(map(json.dumps, THREE)) + "\n]}\n",
        json.dumps({"info": {"by": [1, {"x": 2}]}, "rows": THREE, "n": 3}, indent=2),
        json.dumps({k["id"]: TALK for k in THREE}),
        "\n".join(json.dumps(r, indent=2) for r in THREE),
        " ".join(map(json.dumps, THREE)),
        "\r".join(map(json.dumps, THREE)),
        json.dumps(THREE[:2]) + "\n" + json.dumps(THREE[2:]),
        json.dumps(THREE)[:-1] + ",]",
        ",\n".join(map(json.dumps, THREE)),
    ],
)
def test_records_in_other_shapes(tmp_path, monkeypatch, chunk, text):
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    assert list(iter_records(write(tmp_path / "r.json", text))) == THREE


def test_a_line_that_is_no_json_is_one_refused_row(tmp_path):
    lines = [json.dumps(r).encode() for r in THREE]
    text = b"\n".join([lines[0], b'{"id": "b", "conv', lines[1], b'{"id": "\xff"}', b'{"t": "a\tb"}', lines[2], b'{"c'])
    rows = list(iter_records(write(tmp_path / "r.jsonl", text)))
    assert [str(f)[:6] if isinstance(f, RefusedError) else f for f in rows] == [
        THREE[0], "line 2", THREE[1], "line 4", {"t": "a\tb"}, THREE[2], "line 7",
    ]  # fmt: skip


def test_huge_numbers_and_deep_nests_cost_one_row(tmp_path):
    deep = '{"x": ' + "[" * 5000 + '"]"' + "]" * 5000 + "}"
    rows = list(iter_records(write(tmp_path / "r.json", f'[{{"n": {"9" * 5000}}}, {deep}, {{"a": 1}}]')))
    assert rows[0] == {"n": "9" * 5000}
    assert isinstance(rows[1], RefusedError)
    assert rows[2] == {"a": 1}


def test_two_lists_of_records_are_not_mixed(tmp_path):
    with pytest.raises(InputError, match="'train' and 'test'"):
        list(iter_records(write(tmp_path / "r.json", json.dumps({"train": THREE, "test": THREE}))))


def test_a_break_in_a_long_file_is_found_at_once(tmp_path, monkeypatch):
    """A syntax error in row 1 must not pull the rest of the file into memory."""
    read = []
    more = json_stream._Parser._more
    monkeypatch.setattr(json_stream, "_CHUNK", 1000)
    monkeypatch.setattr(json_stream._Parser, "_more", lambda self: (more(self), read.append(self.read)))
    with pytest.raises(InputError, match="row 1"):
        list(iter_records(write(tmp_path / "r.json", '[{"a": 1}, {"a" 2}, ' + '{"a": 3}, ' * 50_000)))
    assert read[-1] < 10_000


@pytest.mark.parametrize("kind", ["none", "folder", "fifo"])
def test_no_file_to_read(tmp_path, kind):
    path = tmp_path / "source"
    if kind == "folder":
        path.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(InputError, match={"none": "no such file", "folder": "folder", "fifo": "regular"}[kind]):
        next(iter_records(str(path)))


def test_a_cut_off_archive(tmp_path):
    rng = random.Random(0)
    whole = gzip.compress(json.dumps([rng.random() for _ in range(50_000)]).encode())
    path = write(tmp_path / "r.json.gz", whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"r\.json\.gz"):
        list(iter_records(path))


def test_memory_does_not_grow_with_the_file(tmp_path):
    """26 MB of records, 1 MB chunks: the parser holds a few chunks (measured 5 MB), `json.load` over 100 MB."""
    path = tmp_path / "big.json"
    with path.open("w") as sink:
        sink.write("[")
        for i in range(40_000):
            sink.write((", " if i else "") + json.dumps({"id": i if i % 2 else f"s{i}", "text": "word " * 120}))
        sink.write("]")
    tracemalloc.start()
    rows = sum(1 for _ in iter_records(str(path)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 40_000
    assert path.stat().st_size > 24_000_000
    assert peak < 8_000_000
