"""A folder with everything that goes wrong with pictures and records, and a full disk, through ingest and the doctor."""

import io
import json
import os
import random
import resource
import string
import struct
import subprocess
import sys
import zlib

import pytest
from PIL import Image
from vinnow.pool import writer
from vinnow.pool.doctor import examine
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.store.claim import MARK
from vinnow.store.errors import InputError, WriteError
from vinnow.store.tables import REFUSED, read_rows


def talk(*values) -> list[dict]:
    return [{"from": ("human", "gpt")[i % 2], "value": v} for i, v in enumerate(values)]


def huge_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture
def damaged(tmp_path):
    """Eight sound rows and one of each damage; returns the config and {row: reason}."""
    folder = tmp_path / "images"
    (folder / "coco").mkdir(parents=True)
    whole = io.BytesIO()
    rng = random.Random(0)
    for n in range(4):
        picture = Image.frombytes("RGB", (8, 8), rng.randbytes(192)).resize((96, 64))
        picture.save(folder / f"coco/{n}.jpg")
    picture.save(whole, "JPEG")
    picture.resize((48, 32)).save(folder / "coco/again.png")  # near repeat of 3
    picture.save(folder / "coco/gif.jpg", "GIF")
    (folder / "coco/cut.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (folder / "coco/empty.jpg").write_bytes(b"")
    (folder / "coco/text.jpg").write_text("<html>404</html>")
    (folder / "coco/huge.png").write_bytes(huge_png(30_000, 20_000))
    (tmp_path / "secret.jpg").write_bytes(whole.getvalue())
    (folder / "coco/link.jpg").symlink_to(tmp_path / "secret.jpg")
    os.mkfifo(folder / "coco/fifo.jpg")

    def shows(image, *turns):
        return {"id": "same", "image": image, "conversations": talk(*(turns or ("<image>\nq", "a")))}

    sound = [
        *(shows(f"coco/{n}.jpg") for n in range(4)),
        shows("coco/again.png"),
        shows("coco/gif.jpg"),
        shows("coco/0.jpg", "q", "see <image>", "q2", " "),
        {"id": "same", "conversations": talk("<image> what is it?", "nothing")},
    ]
    bad = {
        "image_missing": [shows("coco/none.jpg"), shows("coco/none.jpg", "twice", "a")],
        "image_empty": [shows("coco/empty.jpg")],
        "image_truncated": [shows("coco/cut.jpg")],
        "image_unreadable": [shows("coco/text.jpg")],
        "image_too_large": [shows("coco/huge.png")],
        "image_outside_root": [shows("../../etc/passwd"), shows("/etc/passwd"), shows("coco/link.jpg")],
        "image_not_a_file": [shows("coco/fifo.jpg"), shows("coco")],
        "bad_role": [{"conversations": [*talk("q", "a"), {"from": "system", "value": "s"}]}],
        "empty_answer": [{"conversations": talk("q", "", "q", "\n")}],
        "bad_turn": [{"conversations": talk(None, "a")}],
        "no_conversations": [{"image": None, "conversations": None}, {}],
        "not_an_object": [None, [], "text"],
        "duplicate": [sound[0]],
    }
    rows = [*((None, r) for r in sound), *((reason, r) for reason, records in bad.items() for r in records)]
    # in any order, but a repeat comes behind what it repeats
    body = rows[:-1]
    rng.shuffle(body)
    rows = [*body, rows[-1]]
    (tmp_path / "r.json").write_text(json.dumps([r for _, r in rows], indent=1))
    config = IngestConfig(source=str(tmp_path / "r.json"), image_root=str(folder), duplicates="refuse", max_refused=1)
    return config, {position: reason for position, (reason, _) in enumerate(rows) if reason}


@pytest.mark.parametrize("workers", [0, 2])
def test_each_damage_is_refused_by_its_name_and_the_rest_goes_through(damaged, tmp_path, workers):
    config, expected = damaged
    config = config.model_copy(update={"workers": workers})
    report = ingest(config, str(tmp_path / "pool"))
    refused = read_rows(tmp_path / "pool/refused.parquet", REFUSED).to_pylist()
    assert {r["row"]: r["reason"] for r in refused} == expected
    assert (report.rows, report.refused, report.misnamed, report.near_duplicates) == (8, len(expected), 1, 2)
    pool = Pool(str(tmp_path / "pool"))
    # one `id` in all rows, an own one here
    assert len(set(pool.ids().tolist())) == 8
    findings = examine(config, max_len=4)
    assert (findings.rows, findings.refused, findings.reasons) == (report.rows, report.refused, report.reasons)
    assert findings.warnings == {
        "mark_in_answer": 1,
        "mark_added": 1,
        "mark_without_picture": 1,
        "empty_answer_among": 1,
        "misnamed_image": 1,
        "near_duplicate": 2,  # the smaller PNG, and the GIF
        "over_length": 2,
    }
    assert "'coco/gif.jpg' is GIF" in findings.examples["misnamed_image"][0]
    assert findings.composition is None
    kept = ingest(config.model_copy(update={"duplicates": "keep"}), str(tmp_path / "kept"))
    assert (kept.rows, kept.duplicates) == (9, 1)
    repeat = Pool(str(tmp_path / "kept")).column("duplicate_of")
    assert [r in set(Pool(str(tmp_path / "kept")).ids().tolist()) for r in repeat if r is not None] == [True]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'[{"id": 1}, {"id": "tex', ["row 1", "cut off"]),
        (b'{"a": [\n{"texts": []}\n],\n"b": [{"texts": []}]}', ["'a' and 'b'", "one of them"]),
        (b'[{"id": 1}, {"id": "\xff"}]', ["byte 20", "UTF-8"]),
    ],
)
def test_a_source_that_cannot_be_read_ends_all(tmp_path, data, words):
    (tmp_path / "r.json").write_bytes(data)
    for work in (lambda c: ingest(c, str(tmp_path / "pool")), examine):
        with pytest.raises(InputError) as error:
            work(IngestConfig(source=str(tmp_path / "r.json")))
        assert all(w in str(error.value) for w in words)
    assert not (tmp_path / "pool/pool.json").exists()


@pytest.fixture
def plenty(tmp_path):
    """3000 rows of texts that hardly compress: some 1.4 MB of parts."""
    rng = random.Random(0)
    rows = [
        {"id": i, "conversations": talk("q", "".join(rng.choices(string.ascii_letters, k=600)))} for i in range(3000)
    ]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    return IngestConfig(source=str(tmp_path / "r.json"))


def left(out) -> list[str]:
    """Our mark aside."""
    return sorted(p.name for p in out.iterdir() if p.name != MARK) if out.exists() else []


def test_a_full_disk_leaves_no_half_part(plenty, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "SHARD_ROWS", 1000)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=800k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small disk needs root; the next test limits a file's size instead")
    try:
        out = disk / "pool"
        with pytest.raises(WriteError, match=r"cannot write .*part-000001.parquet.*No space left.*run again"):
            ingest(plenty, str(out))
        assert left(out) == ["part-000000.parquet"]
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        report = ingest(plenty, str(out))
        assert report.digest == ingest(plenty, str(tmp_path / "undisturbed")).digest
        assert Pool(str(out)).rows == 3000
    finally:
        subprocess.run(["umount", str(disk)], check=True)


LIMITED = """
import resource, signal, sys
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.store.errors import WriteError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    ingest(IngestConfig(source=sys.argv[1]), sys.argv[2])
except WriteError as error:
    sys.exit(f"said: {error}")
"""


def test_a_file_that_cannot_grow_leaves_no_half_part(plenty, tmp_path):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    out = tmp_path / "pool"
    done = subprocess.run([sys.executable, "-c", LIMITED, plenty.source, str(out)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("said: cannot write")
    assert left(out) == []
    assert ingest(plenty, str(out)).rows == 3000
