"""A record in which an object names a key twice is refused by that key, however its file is laid out and cut."""

import json
import tarfile
from io import BytesIO

import pytest
from vinnow.pool.blocks import Block, parse
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.json_source import JSON, may_repeat
from vinnow.pool.json_stream import iter_records
from vinnow.pool.reader import Pool
from vinnow.pool.refusals import RefusedError
from vinnow.store.errors import InputError
from vinnow.store.tables import REFUSED, read_rows


def sound(i, text='said \\": no'):
    turns = f'[{{"from": "human", "value": "q {i} : {text}?"}}, {{"from": "gpt", "value": "a"}}]'
    return f'{{"id": "{i}", "conversations": {turns}}}'


OUTER = sound(7)[:-1] + ', "id": "8"}'
INNER = sound(9).replace('"from": "gpt",', '"from": "gpt", "value": "b",')
SPACED = sound(5)[:-1] + ', "id" : "8"}'
DEEP = sound(6)[:-1] + ', "meta": {"a": [{"b": 1, "b": 2}]}}'
BAD = {"outer": (OUTER, "id"), "inner": (INNER, "value"), "spaced": (SPACED, "id"), "deep": (DEEP, "b")}
LAYOUTS = {
    "array": lambda rows: "[" + ",\n".join(rows) + "]",
    "lines": lambda rows: "\n".join(rows),
    "wrapped": lambda rows: '{"version": 1, "data": [' + ",".join(rows) + "]}",
    "by id": lambda rows: "{" + ",".join(f'"k{n}": {r}' for n, r in enumerate(rows)) + "}",
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bad", BAD)
def test_it_is_one_refused_row_among_sound_ones(tmp_path, layout, bad):
    record, key = BAD[bad]
    source = tmp_path / "data.json"
    source.write_text(LAYOUTS[layout]([sound(0), record, sound(1), sound(2)]))
    report = ingest(IngestConfig(source=str(source), max_refused=0.5), str(tmp_path / "pool"))
    assert (report.rows, report.reasons) == (3, {"key_twice": 1})
    refused = read_rows(tmp_path / "pool" / "refused.parquet", REFUSED).to_pylist()
    assert [(r["row"], f"the key {key!r} twice" in r["detail"]) for r in refused] == [(1, True)]
    assert [
        r.conversations[0]["value"][:3] for r in Pool(str(tmp_path / "pool")).take(Pool(str(tmp_path / "pool")).ids())
    ]


def test_a_file_that_is_one_record_and_one_that_is_no_list_of_records(tmp_path):
    (tmp_path / "one.json").write_text(OUTER)
    values = list(iter_records(str(tmp_path / "one.json")))
    assert [type(v) for v in values] == [RefusedError]
    (tmp_path / "problems.json").write_text('{"1": {"question": "?"}, "1": {"question": "!"}}')
    (tmp_path / "pid_splits.json").write_text('{"test": ["1"]}')
    with pytest.raises(InputError, match="the key '1' is there twice"):
        ingest(IngestConfig(source=str(tmp_path), format="scienceqa", split="test"), str(tmp_path / "pool"))


def test_in_a_tar_of_samples(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, text in (("0", sound(0)), ("1", INNER)):
            info = tarfile.TarInfo(f"{name}.json")
            info.size = len(text.encode())
            tar.addfile(info, BytesIO(text.encode()))
    report = ingest(IngestConfig(source=str(tmp_path / "a.tar"), max_refused=0.5), str(tmp_path / "pool"))
    assert (report.rows, report.reasons) == (1, {"key_twice": 1})


def test_usual_records_are_read_once_and_what_may_repeat_never_passes():
    usual = [sound(i) for i in range(5)] + ['{"id": 1, "image": "a.jpg", "conversations": []}', '"no record"', "3"]
    data = ("[" + ",".join(usual) + "]").encode()
    assert not may_repeat(data, JSON.decode(data.decode()))
    # one that is lost may not be made up for by what only looks like a key
    tricks = [
        '{"a": 1, "a" : 2}',
        '{"a": "x\\\\\\\\": 1}',
        '{"a\\\\\\\\": 1, "b": 1, "b": 2}',
        '{"a"\\n:1,"b":1,"b":2}',
    ]
    for text in [*(t.replace("\\\\", "\\").replace("\\n", "\n") for t in tricks), *(r for r, _ in BAD.values())]:
        try:
            values = JSON.decode(f"[{text}]")
        except json.JSONDecodeError:
            continue
        assert may_repeat(f"[{text}]".encode(), values), text


def test_blocks_end_as_they_did(tmp_path):
    for end, ended in ((",", "more"), ("]", "closed")):
        parsed = parse(Block(f" {OUTER} , {sound(1)} {end}\n".encode(), 0, False))
        assert (parsed.ended, [type(v) for v in parsed.values]) == (ended, [RefusedError, dict])
    assert parse(Block(b" ] ", 0, False)).values == []
