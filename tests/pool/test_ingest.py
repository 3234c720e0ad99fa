"""Ingest: every row ends in POOL or REFUSED, a second run does nothing, a killed one is replaced."""

import json
import os
import signal
import subprocess
import sys

import pytest
from pictures import make_records, write_records
from vinnow.pool.doctor import examine, render
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError
from vinnow.store.tables import REFUSED, read_rows


def talk(*values: str) -> list[dict]:
    return [{"from": ("human", "gpt")[i % 2], "value": v} for i, v in enumerate(values)]


@pytest.fixture
def damaged(tmp_path):
    """20 sound rows and one of each damage; returns the config and {row: (reason, source)}."""
    records, pictures = make_records(20)
    folder = tmp_path / "images"
    records[0]["id"] = 17  # mix665k's ids are strings and numbers
    bad = [
        ("not_an_object", "", ["a", "list"]),
        ("no_conversations", "text", {"id": "x", "conversations": None}),
        ("bad_role", "mine", {"source": "mine", "conversations": [{"from": "tool", "value": "s"}]}),
        ("bad_image", "", {"image": 5, "conversations": talk("q", "a")}),
        ("image_missing", "coco", {"image": "coco/none.png", "conversations": talk("q", "a")}),
        ("image_truncated", "pics", {"image": "pics/cut.png", "conversations": talk("q", "a")}),
        ("image_outside_root", "..", {"image": "../../etc/passwd", "conversations": talk("q", "a")}),
        ("image_outside_root", "/", {"image": "/etc/passwd", "conversations": talk("q", "a")}),
        ("image_outside_root", "image", {"image": "out.png", "conversations": talk("q", "a")}),
        ("image_not_a_file", "image", {"image": "fifo", "conversations": talk("q", "a")}),
        ("bad_text", "\\udc80", {"source": "\udc80", "conversations": talk("q", "\ud800")}),
        ("duplicate", records[3]["source"], dict(records[3], id="again")),
        ("duplicate", records[3]["source"], dict(records[3], id="thrice")),
    ]
    expected = {}
    for i, (reason, source, record) in enumerate(bad):
        expected[4 + 2 * i] = (reason, source)
        records.insert(4 + 2 * i, record)
    source = write_records(tmp_path, records, pictures)
    whole = (folder / "pics/0.png").read_bytes()
    (folder / "pics/cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "secret.png").write_bytes(whole)
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(folder / "fifo")
    return IngestConfig(source=source, image_root=str(folder), duplicates="refuse", max_refused=1), expected


def test_every_row_ends_in_the_pool_or_with_its_reason(damaged, tmp_path):
    config, expected = damaged
    seen: list[int] = []
    report = ingest(config, str(tmp_path / "pool"), seen.append)
    refused = read_rows(tmp_path / "pool/refused.parquet", REFUSED).to_pylist()
    assert {r["row"]: (r["reason"], r["source"]) for r in refused} == expected
    assert all(r["detail"] for r in refused)
    # a duplicate has an id of its own (occurrence 2, 3); other refusals have none
    assert len({r["sample_id"] for r in refused if r["reason"] == "duplicate"}) == 2
    assert all(r["sample_id"] is None for r in refused if r["reason"] != "duplicate")
    assert (report.rows, report.refused, seen[-1]) == (20, 13, 33)
    assert report.reasons["image_outside_root"] == 3
    assert sum(report.by_source.values()) == sum(report.by_task.values()) == 20
    assert report.by_source == {"shapes": 16, "text": 4}
    pool = Pool(str(tmp_path / "pool"))
    assert (pool.rows, pool.digest, pool.image_root) == (20, report.digest, config.image_root)


def test_kept_duplicates_have_ids_of_their_own(damaged, tmp_path):
    config, _ = damaged
    report = ingest(config.model_copy(update={"duplicates": "keep"}), str(tmp_path / "pool"))
    ids = Pool(str(tmp_path / "pool")).ids()
    assert report.rows == len(set(ids.tolist())) == 22


def test_ids_do_not_depend_on_order_file_or_format(tmp_path):
    records, _ = make_records(30)
    for r in records:
        r.pop("image", None)
    pools = []
    for name, rows in (("a.json", records), ("b.jsonl", records[::-1])):
        text = json.dumps(rows) if name == "a.json" else "\n".join(map(json.dumps, rows))
        (tmp_path / name).write_text(text)
        ingest(IngestConfig(source=str(tmp_path / name)), str(tmp_path / name) + "-pool")
        pools.append(Pool(str(tmp_path / name) + "-pool"))
    assert pools[0].digest == pools[1].digest
    by_id = [{r.sample_id: r for r in p.take(p.ids())} for p in pools]
    # equal contents share a content hash, so which of them is "the second" depends on the order; contents do not
    assert {i: r.conversations for i, r in by_id[0].items()} == {i: r.conversations for i, r in by_id[1].items()}


def test_a_second_run_does_nothing(damaged, tmp_path):
    config, _ = damaged
    out = tmp_path / "pool"
    first = ingest(config, str(out))
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    again = ingest(config.model_copy(update={"threads": 1}), str(out), lambda rows: pytest.fail("worked again"))
    assert again == first
    assert {p.name: p.stat().st_mtime_ns for p in out.iterdir()} == before


def test_another_source_or_rule_is_another_pool(damaged, tmp_path):
    config, _ = damaged
    out = str(tmp_path / "pool")
    ingest(config, out)
    for change in ({"duplicates": "keep"}, {"max_pixels": 99}, {"check_images": "exists"}, {"image_root": None}):
        with pytest.raises(InputError, match=f"{next(iter(change))}: was"):
            ingest(config.model_copy(update=change), out)
    with open(config.source, "a") as sink:
        sink.write(" ")
    with pytest.raises(InputError, match="size: was"):
        ingest(config, out)


def test_strict_ends_at_the_first_bad_row(damaged, tmp_path):
    config, _ = damaged
    strict, out = config.model_copy(update={"strict": True}), tmp_path / "pool"
    with pytest.raises(InputError, match="row 4: not_an_object"):
        ingest(strict, str(out))
    assert not (out / "pool.json").exists()
    ingest(config, str(out))
    with pytest.raises(InputError, match="13 rows were refused"):
        ingest(strict, str(out))


def test_unchecked_pictures_must_still_be_there(damaged, tmp_path):
    config, _ = damaged
    report = ingest(config.model_copy(update={"check_images": "exists"}), str(tmp_path / "pool"))
    assert "image_truncated" not in report.reasons
    assert (report.reasons["image_missing"], report.reasons["image_outside_root"]) == (1, 3)


def test_a_pixel_cap(damaged, tmp_path):
    config, _ = damaged
    report = ingest(config.model_copy(update={"max_pixels": 64 * 64 - 1}), str(tmp_path / "pool"))
    # 16 sound rows, two repeats of one, and the cut picture, whose header is whole
    assert report.reasons["image_too_large"] == 19
    with pytest.raises(InputError, match="max_pixels"):
        IngestConfig.parse({"source": "x", "max_pixels": 10**9})  # above what PIL itself opens


def test_nothing_usable_leaves_the_list_of_reasons(tmp_path):
    (tmp_path / "r.json").write_text('[{"id": 1}, 5]')
    with pytest.raises(InputError, match=r"not one row could be used .*no_conversations"):
        ingest(IngestConfig(source=str(tmp_path / "r.json")), str(tmp_path / "pool"))
    assert read_rows(tmp_path / "pool/refused.parquet", REFUSED).num_rows == 2
    assert not (tmp_path / "pool/pool.json").exists()


def test_a_missing_source_names_itself(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.json"):
        ingest(IngestConfig(source=str(tmp_path / "nowhere.json")), str(tmp_path / "pool"))


KILLED = """
import os, signal, sys
from vinnow.pool.ingest import IngestConfig, ingest
def die(rows):
    if rows > 17_000:
        os.kill(os.getpid(), signal.SIGKILL)
ingest(IngestConfig(source=sys.argv[1]), sys.argv[2], die)
"""


def test_killed_and_run_again(tmp_path):
    """SIGKILL after two parts; the rerun equals an undisturbed run and leaves other people's files alone."""
    rows = [{"id": i, "conversations": talk(f"q{i % 9000}", "a")} for i in range(20_000)]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    config, out = IngestConfig(source=str(tmp_path / "r.json")), tmp_path / "pool"
    killed = subprocess.run([sys.executable, "-c", KILLED, config.source, str(out)], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert sorted(p.name for p in out.glob("[!.]*")) == ["part-000000.parquet", "part-000001.parquet"]
    with pytest.raises(InputError, match="no finished pool"):
        Pool(str(out))
    (out / "part-000007.parquet").write_bytes(b"left by a run over a longer source")
    (out / "part-000001.parquet.tmp-0123456789ab").write_bytes(b"cut off")
    (out / "notes.parquet").write_bytes(b"not ours")
    report = ingest(config, str(out))
    whole = ingest(config, str(tmp_path / "undisturbed"))
    assert report.digest == whole.digest
    parts = [f"part-{i:06d}.parquet" for i in range(3)]
    assert sorted(p.name for p in out.glob("[!.]*")) == sorted(
        ["notes.parquet", "pool.json", "refused.parquet", *parts]
    )
    for name in [*parts, "refused.parquet"]:
        assert (out / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def test_pictures_are_looked_at_once(tmp_path, monkeypatch):
    """mix665k asks about most COCO pictures several times; decoding them is most of an ingest."""
    from vinnow.pool import image_checks as room

    records, pictures = make_records(5)
    source = write_records(tmp_path, records[:4] * 600, pictures)
    looked, load = [], room.load_image
    monkeypatch.setattr(room, "load_image", lambda *a, **k: (looked.append(a[1]), load(*a, **k))[1])
    config = IngestConfig(source=source, image_root=str(tmp_path / "images"), workers=0)
    assert ingest(config, str(tmp_path / "pool")).rows == 2400
    assert sorted(looked) == sorted({r["image"] for r in records[:4]})


def test_the_doctor_finds_what_ingest_refuses_and_writes_nothing(damaged, tmp_path):
    config, expected = damaged
    before, seen = sorted(p for p in tmp_path.rglob("*")), []
    report = examine(config, seen.append)
    assert sorted(p for p in tmp_path.rglob("*")) == before
    written = ingest(config, str(tmp_path / "pool"))
    assert (report.rows, report.refused, report.reasons) == (written.rows, written.refused, written.reasons)
    assert (report.by_source, report.by_task) == (written.by_source, written.by_task)
    assert (report.text_only, seen[-1]) == (4, 33)
    for reason, shown in report.examples.items():
        rows = [int(line.split(":")[0].removeprefix("row ")) for line in shown]
        assert rows == [row for row, (r, _) in expected.items() if r == reason][:3]
    from rich.console import Console

    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    for table in render(report):
        console.print(table)
    text = console.export_text()
    assert all(reason in text for reason in report.reasons)
    assert "source shapes" in text


def test_a_picture_that_is_back_is_looked_at_again_and_rows_keep_their_ids(tmp_path):
    source = write_records(tmp_path, *make_records(20))
    config = IngestConfig(source=source, image_root=str(tmp_path / "images"), max_refused=0.2)
    lost, moved = tmp_path / "images/pics/2.png", tmp_path / "moved.png"
    lost.rename(moved)
    first = ingest(config, str(tmp_path / "pool"))
    assert (first.rows, first.reasons, first.unreadable) == (19, {"image_missing": 1}, ["pics/2.png"])
    before = set(Pool(str(tmp_path / "pool")).ids().tolist())
    written = (tmp_path / "pool/part-000000.parquet").stat().st_mtime_ns
    assert ingest(config, str(tmp_path / "pool")) == first
    assert (tmp_path / "pool/part-000000.parquet").stat().st_mtime_ns == written
    moved.rename(lost)
    again = ingest(config, str(tmp_path / "pool"))
    assert (again.rows, again.reasons, again.unreadable) == (20, {}, [])
    assert before < set(Pool(str(tmp_path / "pool")).ids().tolist())
