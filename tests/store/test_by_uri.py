"""Folders at a URI, at a real S3 server on loopback: whole or not there, fetched once, and not where there is no room."""

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from contextlib import suppress
from pathlib import Path

import pytest
from buckets import OTHERS, bucket
from vinnow.store import fetch, files, folders
from vinnow.store.errors import InputError, WriteError
from vinnow.store.scratch import local_file, local_output, scratch

PARENT = Path(__file__).parents[3]
ROOT = "s3://bucket/run"


@pytest.fixture(scope="module")
def server():
    with bucket("bucket") as variables:
        yield variables


@pytest.fixture(autouse=True)
def here(server, monkeypatch, tmp_path):
    for name in OTHERS:
        monkeypatch.delenv(name, raising=False)
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("VINNOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "_USED", {})
    yield
    folders.remove(ROOT)


def model(folder):
    (folder / "below").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(os.urandom(100_000))
    (folder / "below/note.txt").write_text("x")
    return folder


def everything(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def test_a_folder_goes_there_and_back_and_another_takes_its_place(tmp_path):
    first = model(tmp_path / "model")
    folders.put_folder(first, f"{ROOT}/model")
    folders.get_folder(f"{ROOT}/model", tmp_path / "back")
    assert everything(tmp_path / "back") == everything(first)
    assert folders.names(f"{ROOT}/model") == ["below", "config.json", "model.safetensors"]
    shutil.rmtree(first / "below")
    folders.put_folder(first, f"{ROOT}/model")
    assert folders.names(f"{ROOT}/model") == ["config.json", "model.safetensors"]
    assert folders.is_folder(f"{ROOT}/model")
    folders.remove(f"{ROOT}/model")
    folders.remove(f"{ROOT}/model")
    assert not files.exists(f"{ROOT}/model")
    assert folders.names(f"{ROOT}/model") == []


def test_what_says_that_a_folder_is_complete_comes_last(tmp_path, monkeypatch):
    put = folders.put_file

    def broken(local, path):
        if Path(local).name == "model.safetensors":
            raise WriteError("the network is gone")
        put(local, path)

    monkeypatch.setattr(folders, "put_file", broken)
    with pytest.raises(WriteError):
        folders.put_folder(model(tmp_path / "model"), f"{ROOT}/model")
    assert not files.exists(f"{ROOT}/model/config.json")


def test_a_model_is_fetched_once_and_again_when_it_is_another(tmp_path, monkeypatch):
    folders.put_folder(model(tmp_path / "model"), f"{ROOT}/model")
    place = fetch.local_folder(f"{ROOT}/model/")
    assert everything(place) == {n: d for n, d in everything(tmp_path / "model").items() if "/" not in n}
    with monkeypatch.context() as patch:
        patch.setattr(fetch, "get_folder", lambda *_: pytest.fail("fetched again"))
        assert fetch.local_folder(f"{ROOT}/model") == place
    (tmp_path / "model/config.json").write_text("{1}")
    folders.put_folder(tmp_path / "model", f"{ROOT}/model")
    assert Path(fetch.local_folder(f"{ROOT}/model"), "config.json").read_text() == "{1}"
    assert fetch.local_folder(f"{ROOT}/nothing") is None


def test_what_is_cut_off_is_no_model(tmp_path, monkeypatch):
    folders.put_folder(model(tmp_path / "model"), f"{ROOT}/model")
    monkeypatch.setattr(
        fetch, "get_folder", lambda uri, local, sizes: folders.get_folder(uri, local, dict.fromkeys(sizes, 7))
    )
    with pytest.raises(InputError, match=r"of 7 bytes came"):
        fetch.local_folder(f"{ROOT}/model")
    kept = Path(fetch.cache_folder("models"))
    assert [p for p in kept.iterdir() if p.is_dir()] == []


def test_a_full_disk_drops_the_longest_unused_and_then_says_so(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    for name in ("a", "b", "c"):
        folders.put_folder(model(tmp_path / name), f"{ROOT}/{name}")
    free = iter([10**12])
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: usage(0, 0, next(free)))
    free = iter([10**12] * 4)
    kept = fetch.local_folder(f"{ROOT}/a")
    old = fetch.local_folder(f"{ROOT}/b")
    fetch.let_go(f"{ROOT}/b")
    os.utime(f"{old}.lock", (1, 1))
    free = iter([0, 10**12, 10**12])  # room is there once one is gone
    fetch.local_folder(f"{ROOT}/c")
    assert Path(kept).is_dir()
    assert not Path(old).exists()
    free = iter([0] * 10)
    with pytest.raises(WriteError, match=r"does not fit into .*VINNOW_CACHE"):
        fetch.local_folder(f"{ROOT}/b")
    assert Path(kept).is_dir()  # this process uses it


def test_another_process_waits_for_no_reader(tmp_path):
    folders.put_folder(model(tmp_path / "model"), f"{ROOT}/model")
    place = fetch.local_folder(f"{ROOT}/model")
    code = f"import sys; sys.path.insert(0, {str(PARENT)!r}); from vinnow.store.fetch import local_folder"
    line = [sys.executable, "-c", f"{code}; print(local_folder({f'{ROOT}/model'!r}))"]
    said = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.strip() == place


def test_a_worker_goes_on_from_what_it_has_copied(tmp_path):
    with scratch(f"{ROOT}/train", "rank0") as place:
        assert place.apart
        Path(place.local, "log.jsonl").write_text("1\n")
        place.push()
        model(Path(place.local, "model"))
        place.put("model")
        assert not Path(place.local, "model").exists()
        Path(place.local, "log.jsonl").write_text("1\n2\n")
        first = place.local
    assert not Path(first).exists()
    with suppress(KeyError), scratch(f"{ROOT}/train", "rank0") as place:
        assert place.local == first
        assert Path(place.local, "log.jsonl").read_text() == "1\n2\n"
        Path(place.local, "stopped.json").write_text("{}")
        raise KeyError
    assert folders.names(f"{ROOT}/train") == ["log.jsonl", "model", "stopped.json"]
    with scratch(str(tmp_path), "rank0") as place:
        assert (place.apart, place.local) == (False, str(tmp_path))
        place.push()


def test_files_and_folders_of_libraries(tmp_path):
    for where in (str(tmp_path), ROOT):
        with local_file(f"{where}/words.log") as path:
            Path(path).write_text("said")
        assert files.read_bytes(f"{where}/words.log") == b"said"
        with local_output(f"{where}/twin") as folder:
            model(Path(folder))
        assert folders.names(f"{where}/twin") == ["below", "config.json", "model.safetensors"]
        with pytest.raises(KeyError), local_output(f"{where}/other") as folder:
            raise KeyError
        assert not files.exists(f"{where}/other")
        folders.move_file(f"{where}/words.log", f"{where}/before.log")
        assert files.read_from(f"{where}/before.log", -2) == b"id"
        assert files.read_from(f"{where}/before.log", 1) == b"aid"
    assert files.absolute("s3://bucket/run/") == ROOT
