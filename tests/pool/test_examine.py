"""Blocks, processes and one parser give the same rows: beside a loop over `iter_records`, one record at a time."""

import json
import random

import numpy as np
import pytest
from vinnow.pool import blocks, workers
from vinnow.pool.checks import RefusedError, check_record
from vinnow.pool.examine import IngestConfig, examine_rows
from vinnow.pool.ingest import ingest
from vinnow.pool.json_stream import iter_records
from vinnow.pool.records import image_value
from vinnow.store.errors import InputError, VinnowError
from vinnow.store.ids import IdGiver, content_of


def talk(*values: str) -> list[dict]:
    return [{"from": ("human", "gpt")[i % 2], "value": v} for i, v in enumerate(values)]


def mixed(n: int, seed: int = 0) -> list:
    """Records that tempt a cutter: its own pattern in texts and deeper in records, repeats, damage, other first keys."""
    rng = random.Random(seed)
    texts = ['"}, {"id": 1', '}]}, {"id": "x", "conversations": [', "貓🐱\n", "\\", 'tail\\"', "x" * 300, "]", ""]
    rows: list = []
    for i in range(n):
        row = {"id": i, "conversations": talk(rng.choice(texts) + "q", f"a{rng.randrange(n // 2)}")}
        kind = rng.randrange(12)
        if kind == 0:
            row["parts"] = [{"id": 1, "a": 2}, {"id": 2}, {"id": 3, "b": [{"id": 4}]}]
        elif kind == 1:
            row = {"conversations": row["conversations"], "image": "a/b.jpg", "id": "last"}
        elif kind == 2:
            row["conversations"][0]["from"] = "system"
        elif kind == 3:
            row = rng.choice([5, [1, [2]], "text", None, {"id": "\ud800", "conversations": talk("q", "\udc00")}])
        rows.append(row)
        if kind == 4:
            rows.append(row)
    return rows


def one_by_one(path: str) -> tuple[list, list]:
    """The plain loop: (row, id, first id of the content, turns, characters, extra), and (row, reason)."""
    ids, sound, bad = IdGiver(), [], []
    for row, raw in enumerate(iter_records(path)):
        try:
            checked = check_record(raw)
        except RefusedError as error:
            bad.append((row, error.reason))
            continue
        content = content_of(image_value(checked.images), checked.conversations)
        first = IdGiver().give_to(content)[0]
        sample, again = ids.give_to(content)
        size = sum(len(t["value"]) for t in checked.conversations)
        sound.append((row, sample, first if again else None, checked.conversations, size, checked.extra))
    return sound, bad


def by_blocks(path: str, number: int) -> tuple[list, list]:
    sound, bad = [], []
    for block in examine_rows(IngestConfig(source=path, check_images="none", workers=number)):
        assert all(block.first <= row < block.first + block.rows for row in block.source_rows)
        for row, r in zip(block.source_rows, block.table.to_pylist()):
            extra = json.loads(r["extra"])
            sound.append((row, r["sample_id"], r["duplicate_of"], r["conversations"], r["n_chars"], extra))
        bad += [(r.row, r.reason) for r in block.refused]
    return sound, bad


FORMS = {
    "compact": lambda rows: json.dumps(rows, separators=(",", ":")),
    "indented": lambda rows: "\n" + json.dumps(rows, indent=2) + "\n ",
    "bom": lambda rows: "\ufeff" + json.dumps(rows),
    "lines": lambda rows: "\r\n\n".join(map(json.dumps, rows)),
    "first key elsewhere": lambda rows: json.dumps([{"zz": 1}, *rows]),
    "no first key": lambda rows: json.dumps([7, *rows]),
}


@pytest.mark.parametrize("form", FORMS)
def test_blocks_of_any_size_are_the_plain_loop(tmp_path, monkeypatch, form):
    rows = [{"id": "first", "conversations": talk("q", "a")}, *mixed(150)]
    (tmp_path / "r.json").write_text(FORMS[form](rows))
    expected = one_by_one(str(tmp_path / "r.json"))
    assert len(expected[0]) > 80
    assert len(expected[1]) > 15
    for size in (1, 40, 333, 2000, 1 << 20):
        monkeypatch.setattr(blocks, "BLOCK", size)
        assert by_blocks(str(tmp_path / "r.json"), 0) == expected


def test_a_wrong_cut_gives_back_what_waits(tmp_path, monkeypatch):
    """Several blocks are with the processes when the first turns out to be cut inside a record."""
    rows = mixed(150)
    rows[3] = {"id": 3, "conversations": talk("q", "a"), "parts": [{"id": i, "text": "x" * 50} for i in range(100)]}
    (tmp_path / "r.json").write_text(json.dumps(rows))
    expected = one_by_one(str(tmp_path / "r.json"))
    monkeypatch.setattr(blocks, "BLOCK", 2000)
    assert by_blocks(str(tmp_path / "r.json"), 2) == expected


def test_most_blocks_are_cut_right(tmp_path, monkeypatch):
    """Or the test above would only try the one parser."""
    rows = [{"id": i, "conversations": talk('}, {"id": ' * 9, "a")} for i in range(300)]
    (tmp_path / "r.json").write_text(json.dumps(rows, indent=2))
    monkeypatch.setattr(blocks, "BLOCK", 1000)
    monkeypatch.setattr(blocks.Cutter, "read_on", lambda *a: pytest.fail("a cut was wrong"))
    assert len(by_blocks(str(tmp_path / "r.json"), 0)[0]) == 300


GOOD = json.dumps(mixed(20, 1))[:-1] + ", "
BROKEN = [
    (GOOD + '{"a": "tex').encode(),
    GOOD.rstrip(", ").encode(),
    GOOD.encode(),
    (GOOD + '{"id": 1} {"id": 2}]').encode(),
    (GOOD + '{"id": 1}] trailing').encode(),
    (GOOD + '{"id": 1}], {"id": 2}, {"id": 3}]').encode(),
    (GOOD + '{id: 2}, {"id": 3}, {"id": 4}]').encode(),
    (GOOD + '{"id": "').encode() + b'\xff"}]',
    (GOOD + "[" * 100_000).encode(),
    b"[",
    b"[,]",
    b'[ , {"id": 1}]',
    b"[[]",
    b"  ",
    b'"text"',
    '[{"id": 1}]'.encode("utf-16"),
]


@pytest.mark.parametrize("case", range(len(BROKEN)))
def test_a_broken_file_ends_in_the_same_words(tmp_path, monkeypatch, case):
    (tmp_path / "r.json").write_bytes(BROKEN[case])
    with pytest.raises(InputError) as expected:
        list(iter_records(str(tmp_path / "r.json")))
    # what stands near, and how far decoding had come, depend on the buffer in both
    words = str(expected.value).split("; near")[0].split(", in row")[0]
    for size in (1, 64, 1 << 20):
        monkeypatch.setattr(blocks, "BLOCK", size)
        with pytest.raises(InputError) as error:
            by_blocks(str(tmp_path / "r.json"), 0)
        assert str(error.value).startswith(words)


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """Rows for several blocks and parts, and the pool that this process makes of them alone."""
    folder = tmp_path_factory.mktemp("long")
    rows = mixed(19_000, 2)
    (folder / "r.json").write_text(json.dumps(rows))
    config = IngestConfig(source=str(folder / "r.json"), check_images="none", workers=0, max_refused=1)
    return config, rows, ingest(config, str(folder / "alone")), folder / "alone"


def test_the_pool_does_not_depend_on_the_number_of_workers(long, tmp_path, monkeypatch):
    config, _, alone, folder = long
    monkeypatch.setattr(blocks, "BLOCK", 300_000)
    more = ingest(config.model_copy(update={"workers": 3}), str(tmp_path / "pool"))
    assert more.digest == alone.digest
    names = sorted(p.name for p in folder.iterdir())
    assert sorted(p.name for p in (tmp_path / "pool").iterdir()) == names
    assert sum(n.startswith("part") for n in names) > 1
    for name in names:
        if name != "pool.json":  # it holds seconds
            assert (tmp_path / "pool" / name).read_bytes() == (folder / name).read_bytes()


def test_a_worker_that_dies_ends_the_run_clearly_and_the_rerun_completes(long, tmp_path, monkeypatch):
    config, _, alone, _ = long
    config = config.model_copy(update={"workers": 2})
    monkeypatch.setattr(blocks, "BLOCK", 100_000)
    begun, start = [], workers.subprocess.Popen
    monkeypatch.setattr(workers.subprocess, "Popen", lambda *a, **k: begun.append(start(*a, **k)) or begun[-1])

    def kill(rows):
        if rows > 6000 and begun[0].poll() is None:
            begun[0].kill()

    with pytest.raises(VinnowError, match=r"died \(exit code -9\).*run the same again"):
        ingest(config, str(tmp_path / "pool"), kill)
    assert not (tmp_path / "pool/pool.json").exists()
    assert all(child.poll() is not None for child in begun), "no process may stay"
    assert ingest(config, str(tmp_path / "pool")).digest == alone.digest


def test_strict_names_the_first_bad_row_even_before_a_break(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps([{"id": 1, "conversations": talk("q", "a")}, {"id": 2}])[:-1] + ", {")
    config = IngestConfig(source=str(tmp_path / "r.json"), strict=True)
    with pytest.raises(InputError, match="row 1: no_conversations"):
        ingest(config, str(tmp_path / "pool"))


def test_tokens_are_those_of_the_texts(tmp_path, make_processor):
    processor = make_processor("metaspace-first")
    processor.save_pretrained(tmp_path / "processor")
    rows = [
        {"image": "a/b.jpg", "conversations": talk("<image>\nWhat is it?", "A cat.")},
        {"conversations": talk("is", "")},
    ]
    rows[1]["conversations"] += talk("What", "cat cat")
    (tmp_path / "r.json").write_text(json.dumps(rows))
    config = IngestConfig(source=str(tmp_path / "r.json"), check_images="none", tokenizer=str(tmp_path / "processor"))

    def size(*texts):
        return sum(len(processor.tokenizer(t, add_special_tokens=False)["input_ids"]) for t in texts)

    expected = [size("What is it?", "A cat."), size("is", "", "What", "cat cat")]
    for number in (0, 1):
        examined = list(examine_rows(config.model_copy(update={"workers": number})))
        assert np.concatenate([f.table["n_tokens"].to_numpy() for f in examined]).tolist() == expected
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        list(examine_rows(config.model_copy(update={"tokenizer": str(tmp_path)})))
