"""Small files that unpack to gigabytes: refused by name, a row or a file, in tens of megabytes; the rest goes on."""

import io
import json
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from peak import peak_of_ingest, peak_of_picture
from PIL import Image
from vinnow.pool import limits, shown
from vinnow.pool.archives import pages
from vinnow.pool.archives import zip as zip_archive
from vinnow.pool.archives.members import File
from vinnow.pool.archives.tar import BrokenTarError, members
from vinnow.pool.export import export
from vinnow.pool.formats import bounded
from vinnow.pool.images import ImageError, load_image
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError
from vinnow.store.files import open_fs

TURNS = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "a cat"}]
MIB = 1 << 20


def tiled(side: int, tile: int) -> bytes:
    """A TIFF of side × side grey pixels in one deflated tile of tile × tile."""
    packer, whole = zlib.compressobj(1), bytes(MIB)
    data = b"".join(packer.compress(whole) for _ in range(tile * tile // MIB + 1)) + packer.flush()
    tags = [(256, side), (257, side), (258, 8), (259, 8), (262, 1), (277, 1), (322, tile), (323, tile)]
    tags += [(324, 8 + 2 + 10 * 12 + 4), (325, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def canvas(side: int) -> bytes:
    """A WebP of one frame of 8 × 8 on a canvas of side × side."""
    sink = io.BytesIO()
    Image.new("RGB", (8, 8)).save(sink, "WEBP", lossless=True)
    frame = bytes(6) + 2 * (7).to_bytes(3, "little") + bytes(4) + sink.getvalue()[12:]
    chunks = {b"VP8X": bytes([2, 0, 0, 0]) + 2 * (side - 1).to_bytes(3, "little"), b"ANIM": bytes(6), b"ANMF": frame}
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(data)) + data for kind, data in chunks.items())
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Small files of pictures that are, or say that they are, large."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "tile.tif").write_bytes(tiled(16, 20_000))
    Image.new("L", (8000, 8000)).save(folder / "wide.jp2")
    (folder / "canvas.webp").write_bytes(canvas(60_000))
    Image.new("I;16", (6000, 6000), 5).save(folder / "deep.png", compress_level=1)
    Image.new("RGBA", (6000, 6000), (1, 2, 3, 100)).save(folder / "clear.png", compress_level=1)
    profile = zlib.compress(bytes(100 * MIB), 1)
    Image.new("RGB", (8, 8)).save(folder / "plain.png")
    png = (folder / "plain.png").read_bytes()
    for kind, head in (("iCCP", b"p\0\0"), ("zTXt", b"k\0\0")):
        body = kind.encode() + head + profile
        chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        (folder / f"{kind}.png").write_bytes(png[:33] + chunk + png[33:])
    return folder


@pytest.mark.parametrize(
    ("name", "outcome", "most"),
    [
        ("tile.tif", "image_too_large", 50),
        ("wide.jp2", "image_unreadable", 50),
        ("canvas.webp", "image_too_large", 50),
        ("iCCP.png", "image_unreadable", 50),
        ("zTXt.png", "image_unreadable", 50),
        # 36 million pixels: four bytes each in RGB, once more while they are made, and a strip
        ("deep.png", [6000, 6000], 450),
        ("clear.png", [6000, 6000], 450),
    ],
)
def test_a_picture_takes_no_more_than_its_pixels(pictures, name, outcome, most):
    assert (pictures / name).stat().st_size < 4 * MIB
    grown, said = peak_of_picture(pictures, name)
    assert said == outcome
    assert grown < most


def test_strips_change_no_value(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    deep = Image.fromarray(rng.integers(0, 65536, (37, 23), dtype=np.uint16))
    clear = Image.fromarray(rng.integers(0, 256, (37, 23, 4), dtype=np.uint8))
    palette = clear.convert("RGB").quantize(9)
    palette.info["transparency"] = 3
    floats = Image.fromarray(rng.normal(size=(37, 23)).astype(np.float32))
    for picture in (deep, clear, palette, floats):
        whole, odd = shown.show(picture), shown.traits(picture)
        with monkeypatch.context() as patch:
            patch.setattr(shown, "_STRIP", 50)
            assert list(shown.show(picture).getdata()) == list(whole.getdata())
            assert shown.traits(picture) == odd


def test_a_usual_tile_is_no_bomb(tmp_path):
    (tmp_path / "t.tif").write_bytes(tiled(16, 256))
    assert load_image(str(tmp_path), "t.tif", max_pixels=300).size == (16, 16)


def repeated(value: object, kind: pa.DataType, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value], kind))


def turns(answer: pa.Array) -> pa.Array:
    rows = len(answer)
    values = pa.StructArray.from_arrays([pa.array(["human", "gpt"] * (rows // 2)), answer], names=["from", "value"])
    return pa.ListArray.from_arrays(pa.array(range(0, rows + 1, 2), pa.int32()), values)


def write(path, table, **options) -> None:
    pq.write_table(table, path, **({"compression": "zstd", "store_schema": False} | options))
    assert path.stat().st_size < 100_000


@pytest.mark.parametrize("nested", [True, False])
def test_a_picture_that_stands_in_a_thousand_cells_is_held_once(tmp_path, nested):
    cells = repeated(bytes(MIB), pa.binary(), 1000)
    if nested:
        cells = pa.StructArray.from_arrays([cells, pa.nulls(1000, pa.string())], names=["bytes", "path"])
    write(tmp_path / "p.parquet", pa.table({"image": cells}))
    grown, said = peak_of_picture(tmp_path, "p.parquet/7/0")
    assert said == "image_unreadable"  # a megabyte of zeros is no picture
    assert grown < 60


def lying(path, footer_says: int, really: int) -> None:
    """Make the footer say another size of its pages, in as many bytes of a varint."""

    def varint(value: int) -> bytes:
        value, out = value << 1, []
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        return bytes([*out, value])

    data, old, new = path.read_bytes(), varint(really), varint(footer_says)
    start = len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]
    assert len(old) == len(new)
    assert old in data[start:]
    path.write_bytes(data[:start] + data[start:].replace(old, new))


def test_pages_are_believed_not_the_footer(tmp_path):
    table = pa.table({"image": [bytes(MIB)] * 400})
    path = tmp_path / "p.parquet"
    write(path, table, use_dictionary=False)
    grown, said = peak_of_picture(tmp_path, "p.parquet/7/0")
    assert said == "image_too_large"
    assert grown < 60
    size = pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size
    lying(path, (1 << 22) * 50, size)
    assert pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size == (1 << 22) * 50
    grown, said = peak_of_picture(tmp_path, "p.parquet/7/0")
    assert said == "image_too_large"
    assert grown < 60


@pytest.mark.parametrize("packing", ["dictionary", "prefixes"])
def test_texts_that_repeat_are_read_a_few_at_a_time(tmp_path, packing):
    rows, text = 400, "a" * MIB
    if packing == "dictionary":
        answers = pa.table({"question": ["what?"] * rows, "answer": repeated(text, pa.string(), rows)})
        write(tmp_path / "t.parquet", answers)
    else:
        answers = pa.table({"question": ["what?"] * rows, "answer": [text] * rows})
        options = {"use_dictionary": False, "column_encoding": {"answer": "DELTA_BYTE_ARRAY"}}
        write(tmp_path / "t.parquet", answers, **options)
    # the pool is written as any other; what is measured is that 400 MB are never held at once
    grown, said = peak_of_ingest(tmp_path / "t.parquet", tmp_path / "pool", check_images="none")
    assert said == [rows, {}]
    assert grown < 1100, grown


def test_a_row_of_too_many_bytes_is_refused_and_the_rest_goes_on(tmp_path):
    short = pa.array(["what?", "a cat"] * 3)
    long = pa.chunked_array([repeated("a" * MIB, pa.string(), 200).cast(pa.string())]).combine_chunks()
    sound, bomb = turns(short), pa.ListArray.from_arrays(pa.array([0, 200], pa.int32()), turns(long).values)
    write(tmp_path / "t.parquet", pa.table({"conversations": pa.concat_arrays([sound[:2], bomb, sound[2:]])}))
    grown, said = peak_of_ingest(tmp_path / "t.parquet", tmp_path / "pool")
    assert said == [3, {"record_too_large": 1}]
    assert grown < 150
    refused = pq.read_table(tmp_path / "pool/refused.parquet").to_pylist()
    assert [(r["row"], r["reason"]) for r in refused] == [(2, "record_too_large")]
    assert str(limits.ROW_BYTES) in refused[0]["detail"]


def test_lists_without_end_are_told_by_the_file_and_the_column(tmp_path):
    entries = pa.array(np.zeros((1 << 25) + 8, np.int8))
    marks = pa.ListArray.from_arrays(pa.array([0, 4, len(entries)], pa.int32()), entries)
    sound = turns(pa.array(["what?", "a cat"] * 2))
    write(tmp_path / "t.parquet", pa.table({"conversations": sound, "marks": marks}))
    grown, said = peak_of_ingest(tmp_path / "t.parquet", tmp_path / "pool")
    assert "t.parquet" in str(said)
    assert "column 'marks.list.element' of row group 0 holds" in str(said)
    assert grown < 60


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_bounded_rows_are_the_rows(tmp_path, dictionary, version, monkeypatch):
    rng = np.random.default_rng(3)
    words = ["", "a", "été", "cat " * 50, None]
    texts = [words[i] for i in rng.integers(0, 5, 900)]
    table = pa.table(
        {
            "t": pa.array(texts),
            "l": pa.array([[t] * (i % 3) if t else None for i, t in enumerate(texts)]),
            "s": pa.array([{"a": i, "b": [{"c": t}]} for i, t in enumerate(texts)]),
            "n": pa.array(rng.normal(size=900)),
            "m": pa.array([[("k", i)] * (i % 2) for i in range(900)], pa.map_(pa.string(), pa.int64())),
        }
    )
    path = tmp_path / "t.parquet"
    options = {"use_dictionary": dictionary, "data_page_version": version, "data_page_size": 500}
    pq.write_table(table, path, row_group_size=350, **options)
    footer = pq.read_metadata(path)
    columns = [footer.schema.column(i).path for i in range(footer.num_columns)]
    for repeats in (bounded._REPEATS, 0):  # 0: each text once, in a dictionary
        monkeypatch.setattr(bounded, "_REPEATS", repeats)
        monkeypatch.setattr(bounded, "ROW_BYTES", 1 << 14)
        assert list(bounded.rows_of(File(*open_fs(path)), footer, columns)) == table.to_pylist()
    for group in range(3):
        for number in range(footer.num_columns):
            chunk = pages.check_chunk(File(*open_fs(path)), footer, group, number)
            facts = footer.row_group(group).column(number)
            assert chunk.values == facts.num_values
            # the footer counts the pages' headers too
            assert 0 < facts.total_uncompressed_size - chunk.unpacked < 200 * (2 + facts.num_values // 10)


def pax(*records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    body = b"".join(records)
    info = tarfile.TarInfo("pax")
    info.size, info.type = len(body), kind
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)


def record(key: str, value: str) -> bytes:
    size = len(key) + len(value) + 3
    while len(str(size)) + len(key) + len(value) + 3 != size:
        size = len(str(size)) + len(key) + len(value) + 3
    return f"{size} {key}={value}\n".encode()


def plain(name: str, data: bytes = b"x") -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf() + data + bytes(-len(data) % 512)


def test_headers_of_a_tar_take_no_memory(tmp_path):
    sparse = record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.name", "s")
    sparse += record("GNU.sparse.realsize", str(1 << 60))
    holes = b"4000000\n" + b"0\n" * (4 << 20)
    globals_ = b"".join(pax(record(f"k{i}", "v" * 400_000), kind=tarfile.XGLTYPE) + plain(f"m{i}") for i in range(5))
    for bad, words in (
        (pax(record("comment", "a" * (3 * MIB))) + plain("b.png"), "a header of"),
        (pax(sparse) + plain("s", holes), "a header of"),
        (globals_, "global headers"),
    ):
        path = tmp_path / "t.tar"
        path.write_bytes(plain("a.png") + bad + bytes(1024))
        infos = members(File(*open_fs(path)))
        assert next(infos).name == "a.png"
        with pytest.raises(BrokenTarError, match=words):
            list(infos)


def test_a_tar_that_says_it_holds_petabytes(tmp_path):
    path = tmp_path / "t.tar"
    path.write_bytes(pax(record("size", str(1 << 50))) + plain("a.png") + bytes(1024))
    grown, said = peak_of_picture(tmp_path, "t.tar/a.png")
    assert said == "image_too_large"
    assert grown < 50


def test_a_zip_whose_directory_is_too_large_is_not_opened(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for i in range(50):
            archive.writestr(f"{i}.png", b"")
    monkeypatch.setattr(zip_archive, "_DIRECTORY", 1000)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(ImageError, match="split the zip") as error:
        load_image(str(tmp_path), "z.zip/1.png")
    assert error.value.reason == "image_too_large"


def test_an_export_opens_known_formats_alone(tmp_path):
    sink = io.BytesIO()
    Image.new("RGB", (8, 8)).save(sink, "JPEG2000")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a.jp2", sink.getvalue())
    (tmp_path / "r.json").write_text(json.dumps([{"conversations": TURNS} | {"image": "z.zip/a.jp2"}]))
    config = IngestConfig(source=str(tmp_path / "r.json"), image_root=str(tmp_path), check_images="exists")
    ingest(config, str(tmp_path / "pool"))
    pool = Pool(str(tmp_path / "pool"))
    with pytest.raises(InputError, match="cannot identify"):
        export(pool, pool.ids(), str(tmp_path / "out.json"), "llava", pictures="write")
