"""Tar, zip and Parquet as folders: the same pictures as from files, the same reasons, never outside, never unpacked."""

import io
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from PIL import Image
from vinnow.pool import images
from vinnow.pool.archives import folder, members
from vinnow.pool.archives.parquet import ParquetArchive
from vinnow.pool.archives.tar import TarArchive
from vinnow.pool.archives.zip import ZipArchive
from vinnow.pool.checks import REASONS
from vinnow.pool.images import ImageError, load_image, read_image, resolve
from vinnow.store.errors import InputError

RNG = np.random.default_rng(0)


def png(value: int = 0) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (6, 4), (value, 10, 20)).save(sink, "PNG")
    return sink.getvalue()


def noise() -> bytes:
    sink = io.BytesIO()
    Image.fromarray(RNG.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def put(archive: tarfile.TarFile, name: str, data: bytes = b"", **kind) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in kind.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(data))


FILES = {
    "a.png": png(1),
    "train2017/b.png": png(2),
    "./c.png": png(3),
    "empty.png": b"",
    "text.png": b"no picture",
    "cut.png": noise()[:4000],
    "x" * 150 + "/long.png": png(4),
    "é🐱.png": png(5),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with `t.tar`, `z.zip` and `p.parquet`, and a folder that is only called `f.zip`."""
    base = tmp_path_factory.mktemp("archives") / "images"
    (base / "f.zip").mkdir(parents=True)
    (base / "f.zip/a.png").write_bytes(png(9))
    (base.parent / "secret.png").write_bytes(png(7))
    with tarfile.open(base / "t.tar", "w") as tar, zipfile.ZipFile(base / "z.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        for i, (name, data) in enumerate(FILES.items()):
            put(tar, name, data)
            zipped.writestr(name, data, zipfile.ZIP_STORED if i % 2 else zipfile.ZIP_DEFLATED)
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            put(tar, f"kind-{kind.decode()}", type=kind, linkname="../secret.png")
        put(tar, "../up.png", png(6))
        put(tar, "/abs.png", png(6))
        put(tar, "a.png", png(8))  # of two members with one name the later counts, as `tar -x` has it
        link = zipfile.ZipInfo("kind-2")
        link.external_attr = 0o120777 << 16
        zipped.writestr(link, "../secret.png")
        zipped.writestr("kind-5/", b"")
        zipped.writestr("../up.png", png(6))
    kind = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    rows = [
        [{"bytes": png(i), "path": f"{i}.png"}, {"bytes": png(i + 100), "path": None}][: 1 + i % 2] for i in range(30)
    ]
    rows[28] = [{"bytes": None, "path": "only.png"}, {"bytes": b"", "path": None}]
    rows[29] = None
    table = pa.table({"id": pa.array(range(30)), "images": pa.array(rows, kind)})
    pq.write_table(table, base / "p.parquet", row_group_size=7)
    (base / "t.tar.gz").write_bytes(b"\x1f\x8b")
    (base / "bad.zip").write_bytes(b"PK no zip")
    (base / "bad.tar").write_bytes(b"no tar" * 200)
    (base / "bad.parquet").write_bytes(b"PAR1 no parquet PAR1")
    pq.write_table(pa.table({"text": ["a"]}), base / "text.parquet")
    (base / "out.tar").symlink_to(base.parent / "else.tar")
    (base.parent / "else.tar").write_bytes((base / "t.tar").read_bytes())
    return base


def colour(root, relative) -> int:
    return load_image(str(root), relative).getpixel((0, 0))[0]


SOUND = [
    *((f"t.tar/{n}", c) for n, c in [("a.png", 8), ("train2017/b.png", 2), ("c.png", 3), ("é🐱.png", 5)]),
    *((f"z.zip/{n}", c) for n, c in [("a.png", 1), ("train2017/b.png", 2), ("c.png", 3), ("é🐱.png", 5)]),
    ("t.tar/" + "x" * 150 + "/long.png", 4),
    ("f.zip/a.png", 9),
    ("./z.zip//a.png", 1),
    ("p.parquet/0/0", 0),
    ("p.parquet/7/1", 107),
    ("p.parquet/27/0", 27),
]


@pytest.mark.parametrize(("relative", "value"), SOUND)
def test_members_are_the_pictures(root, relative, value):
    assert colour(root, relative) == value


@pytest.mark.parametrize(
    ("inside", "relative", "value"),
    [
        ("z.zip/train2017", "b.png", 2),
        ("t.tar", "train2017/b.png", 2),
        ("p.parquet", "3/0", 3),
        ("p.parquet/3", "1", 103),
    ],
)
def test_the_root_may_be_an_archive_or_a_folder_in_one(root, inside, relative, value):
    assert colour(root / inside, relative) == value
    with pytest.raises(ImageError) as error:
        colour(root / inside, "../a.png")
    assert error.value.reason == "image_outside_root"


@pytest.mark.parametrize(("relative", "value"), SOUND)
def test_archives_in_an_object_store(root, monkeypatch, relative, value):
    images._remote.cache_clear()
    bucket = pafs.SubTreeFileSystem(str(root), pafs.LocalFileSystem())
    monkeypatch.setattr(images, "open_fs", lambda path: (bucket, path.removeprefix("s3://bucket").strip("/")))
    assert colour("s3://bucket", relative) == value
    head, _, tail = relative.rpartition("/")
    assert colour(f"s3://bucket/{head.removeprefix('./')}", tail) == value
    images._remote.cache_clear()


REFUSED = [
    *((f"{a}/nothing.png", "image_missing") for a in ("t.tar", "z.zip", "p.parquet", "none.zip", "a.tar/b.zip")),
    *((f"{a}/train2017", "image_missing") for a in ("t.tar", "z.zip")),
    *((f"t.tar/kind-{k}", "image_not_a_file") for k in (2, 1, 3, 6, 5)),
    *((f"z.zip/kind-{k}", "image_not_a_file") for k in (2, 5)),
    *((f"{a}/../up.png", "image_outside_root") for a in ("t.tar", "z.zip")),
    ("t.tar/abs.png", "image_missing"),
    ("t.tar/up.png", "image_missing"),
    ("out.tar/a.png", "image_outside_root"),
    *(
        (f"{a}/{n}.png", r)
        for a in ("t.tar", "z.zip")
        for n, r in [("empty", "image_empty"), ("text", "image_unreadable")]
    ),
    *((f"{a}/cut.png", "image_truncated") for a in ("t.tar", "z.zip")),
    ("t.tar", "image_unreadable"),  # the archive itself is no picture
    ("p.parquet/0/1", "image_missing"),
    ("p.parquet/30/0", "image_missing"),
    ("p.parquet/-1/0", "image_missing"),
    ("p.parquet/28/0", "image_missing"),
    ("p.parquet/28/1", "image_empty"),
    ("p.parquet/29/0", "image_missing"),
    *((f"bad.{k}/a.png", "image_unreadable") for k in ("zip", "parquet")),
    ("bad.tar/a.png", "image_missing"),
    ("text.parquet/0/0", "image_unreadable"),
    ("t.tar.gz/a.png", "image_unreadable"),
]


@pytest.mark.parametrize(("relative", "reason"), REFUSED)
def test_each_damage_has_its_reason(root, relative, reason):
    for _ in range(2):  # the second time from what is remembered
        with pytest.raises(ImageError) as error:
            load_image(str(root), relative)
        assert (error.value.reason, reason in REASONS) == (reason, True), str(error.value)


def test_damage_says_which_archive_and_the_way_out(root):
    for relative, words in [
        ("t.tar.gz/a.png", "unpack it to an uncompressed .tar"),
        ("bad.tar/a.png", r"bad\.tar.*the archive is damaged"),
        ("text.parquet/0/0", "no column of pictures"),
    ]:
        with pytest.raises(ImageError, match=words):
            load_image(str(root), relative)
    with pytest.raises(InputError, match="compressed tar; unpack it") as error:
        load_image(str(root / "t.tar.gz"), "a.png")
    assert not isinstance(error.value, ImageError)  # a wrong root is no fault of one record


def test_a_tar_cut_off_keeps_what_is_whole(root, tmp_path):
    data = (root / "t.tar").read_bytes()
    offset = data.index(FILES["cut.png"][:100])
    (tmp_path / "half.tar").write_bytes(data[: offset + 1000])
    assert colour(tmp_path, "half.tar/train2017/b.png") == 2
    for name, reason in [("cut.png", "image_truncated"), ("é🐱.png", "image_missing")]:
        with pytest.raises(ImageError, match="the archive is damaged") as error:
            load_image(str(tmp_path), f"half.tar/{name}")
        assert error.value.reason == reason
    broken = bytearray(data)
    broken[offset - 512 : offset - 500] = b"\xff" * 12  # a header that is none: tarfile would call it the end
    (tmp_path / "torn.tar").write_bytes(bytes(broken))
    with pytest.raises(ImageError, match="no header at byte"):
        load_image(str(tmp_path), "torn.tar/cut.png")


def bomb(path, declared: int, actual: int, monkeypatch) -> None:
    """A zip whose directory declares another size than its member has."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("a.png", b"\0" * actual)
        zipped.filelist[0].file_size = declared


@pytest.mark.parametrize(("declared", "words"), [(1 << 40, "bytes, over"), (50, "more than the 50 bytes")])
def test_a_zip_bomb_is_not_unpacked(tmp_path, monkeypatch, declared, words):
    import tracemalloc

    bomb(tmp_path / "bomb.zip", declared, 60_000_000, monkeypatch)
    tracemalloc.start()
    with pytest.raises(ImageError, match=words) as error:
        load_image(str(tmp_path), "bomb.zip/a.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.value.reason == "image_too_large"
    assert peak < 3_000_000


def test_damaged_members_of_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as zipped:
        zipped.writestr("a.png", png(1))
        zipped.writestr("b.png", png(2), zipfile.ZIP_LZMA)
        zipped.writestr("c.png", png(3))
        zipped.filelist[2].flag_bits |= 1
    data = bytearray((tmp_path / "z.zip").read_bytes())
    data[data.index(png(1)) + 50] ^= 1
    (tmp_path / "z.zip").write_bytes(bytes(data))
    for name, words in [("a", "checksum"), ("b", "packed by method 14"), ("c", "encrypted")]:
        with pytest.raises(ImageError, match=words) as error:
            load_image(str(tmp_path), f"z.zip/{name}.png")
        assert error.value.reason == "image_unreadable"


@pytest.mark.parametrize("relative", ["plain.png", "t.tar/a.png", "z.zip/a.png", "p.parquet/0/0"])
def test_a_cap_on_bytes_is_checked_before_reading(root, tmp_path, monkeypatch, relative):
    for name in ("t.tar", "z.zip", "p.parquet"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    (tmp_path / "plain.png").write_bytes(png(1))
    assert read_image(str(tmp_path), relative)[:4] == b"\x89PNG"
    monkeypatch.setattr(members, "MAX_BYTES", 40)
    with pytest.raises(ImageError, match="over 40") as error:
        load_image(str(tmp_path), relative)
    assert error.value.reason == "image_too_large"


@pytest.mark.parametrize("relative", ["t.tar/cut.png", "z.zip/cut.png", "p.parquet/3/0"])
def test_resolving_reads_no_picture(root, relative, monkeypatch):
    load = resolve(str(root), "t.tar/a.png"), resolve(str(root), relative)
    assert load
    monkeypatch.setattr(members.File, "read_at", lambda *a: pytest.fail("read"))
    monkeypatch.setattr(ParquetArchive, "_group", lambda *a: pytest.fail("read"))
    resolve(str(root), relative)


def test_an_archive_is_indexed_once_by_many_threads(root, tmp_path, monkeypatch):
    names, indexed = [], []
    for i in range(3):  # shards of their own, each asked for by all threads at once
        for kind in ("tar", "zip", "parquet"):
            (tmp_path / f"{i}.{kind}").write_bytes(
                (root / {"tar": "t.tar", "zip": "z.zip"}.get(kind, "p.parquet")).read_bytes()
            )
            inside = ["5/0", "9/1", "20/0", "26/0"] if kind == "parquet" else ["train2017/b.png", "c.png"]
            names += [f"{i}.{kind}/{n}" for n in inside]
    for kind, archive in ((".tar", TarArchive), (".zip", ZipArchive), (".parquet", ParquetArchive)):
        monkeypatch.setitem(folder._KINDS, kind, lambda file, a=archive: (indexed.append(file.path), a(file))[1])
    monkeypatch.setattr(members, "_FILES", 2)  # files are closed and opened again under way
    expected = {n: colour(root, f"{ {'tar': 't', 'zip': 'z'}.get(n[2:5], 'p') }.{n[2:]}") for n in names}
    with ThreadPoolExecutor(8) as threads:
        asked = names * 20
        colours = list(threads.map(lambda n: colour(tmp_path, n), asked))
    assert colours == [expected[n] for n in asked]
    assert len([p for p in indexed if str(tmp_path) in p]) == 9
    assert len(members.File._open) <= 2


def test_a_parquet_shard_reads_a_group_once_and_one_column(root, monkeypatch):
    read, real = [], pq.ParquetFile.read_row_group
    monkeypatch.setattr(ParquetArchive, "_held", None)
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda self, i, columns: (read.append((i, columns)), real(self, i, columns))[1],
    )
    for row in (0, 6, 3, 7, 8, 27):
        colour(root, f"p.parquet/{row}/0")
    assert read == [(0, ["images"]), (1, ["images"]), (3, ["images"])]


@pytest.mark.parametrize("kind", ["struct", "binary", "list<binary>", "large"])
def test_every_shape_of_an_images_column(tmp_path, kind):
    types = {
        "struct": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        "binary": pa.binary(),
        "list<binary>": pa.list_(pa.binary()),
        "large": pa.large_list(pa.struct([("bytes", pa.large_binary())])),
    }
    cell = {
        "struct": {"bytes": png(1), "path": "x"},
        "binary": png(1),
        "list<binary>": [png(1)],
        "large": [{"bytes": png(1)}],
    }
    name = "images" if "l" in kind[:2] else "image"
    pq.write_table(pa.table({name: pa.array([cell[kind]], types[kind])}), tmp_path / "p.parquet")
    assert colour(tmp_path, "p.parquet/0/0") == 1
    with pytest.raises(ImageError, match="1 pictures"):
        colour(tmp_path, "p.parquet/0/1")
