"""Pictures: only regular files under the root, capped before decoding, damage told apart."""

import io
import os
import struct
import threading
import zlib

import numpy as np
import pyarrow.fs as pafs
import pytest
from PIL import Image, ImageFile
from vinnow.pool import images
from vinnow.pool.checks import REASONS
from vinnow.pool.images import ImageError, load_image
from vinnow.store.errors import InputError

NOISE = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)


def encoded(kind: str) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(NOISE).save(sink, kind)
    return sink.getvalue()


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + ihdr + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(encoded("PNG"))
    (folder / "good.png").write_bytes(encoded("PNG"))
    (folder / "inside.png").symlink_to(folder / "good.png")
    (folder / "outside.png").symlink_to(tmp_path / "secret.png")
    (folder / "away").symlink_to(tmp_path)
    (folder / "circle.png").symlink_to(folder / "circle.png")
    (folder / "dangling.png").symlink_to(folder / "nothing.png")
    for kind in ("JPEG", "PNG", "GIF", "WEBP"):
        (folder / f"cut.{kind}").write_bytes(encoded(kind)[: len(encoded(kind)) * 2 // 3])
    (folder / "text.jpg").write_bytes(b"no picture at all")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "huge.png").write_bytes(png_header(30_000, 20_000))
    (folder / "large.png").write_bytes(png_header(10_000, 9_000))
    os.mkfifo(folder / "fifo.png")
    return folder


@pytest.mark.parametrize(
    ("relative", "reason"),
    [
        ("nothing.png", "image_missing"),
        ("good.png/more.png", "image_missing"),
        ("dangling.png", "image_missing"),
        ("../secret.png", "image_outside_root"),
        ("sub/../../secret.png", "image_outside_root"),
        ("../../../../../../../../etc/passwd", "image_outside_root"),
        ("/etc/passwd", "image_outside_root"),
        ("outside.png", "image_outside_root"),
        ("away/secret.png", "image_outside_root"),
        ("good.png\0.jpg", "image_outside_root"),
        ("sub", "image_not_a_file"),
        (".", "image_not_a_file"),
        ("fifo.png", "image_not_a_file"),
        ("circle.png", "image_unreadable"),
        ("x" * 5000, "image_unreadable"),
        ("empty.jpg", "image_empty"),
        ("text.jpg", "image_unreadable"),
        ("huge.png", "image_too_large"),
        ("large.png", "image_too_large"),
        ("cut.JPEG", "image_truncated"),
        ("cut.PNG", "image_truncated"),
        ("cut.GIF", "image_truncated"),
    ],
)
def test_each_damage_has_its_reason(root, relative, reason):
    with pytest.raises(ImageError) as error:
        load_image(str(root), relative)
    assert (error.value.reason, reason in REASONS) == (reason, True)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_the_cap_is_checked_before_decoding(root, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *a: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="60×40 pixels"):
        load_image(str(root), "good.png", max_pixels=2399)


def test_a_fifo_is_not_opened(root):
    """Opening a FIFO without a writer hangs for ever."""
    reasons = []

    def look() -> None:
        try:
            load_image(str(root), "fifo.png")
        except ImageError as error:
            reasons.append(error.reason)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(5)
    assert reasons == ["image_not_a_file"]


@pytest.mark.parametrize("relative", ["good.png", "inside.png", "./good.png"])
def test_a_sound_picture_is_rgb(root, relative):
    assert np.array_equal(np.array(load_image(str(root), relative)), NOISE)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16"])
def test_other_modes_become_rgb(tmp_path, mode):
    picture = Image.new(mode, (8, 6))
    picture.save(tmp_path / "p.tiff")
    loaded = load_image(str(tmp_path), "p.tiff")
    assert (loaded.mode, loaded.size) == ("RGB", (8, 6))


def test_no_permission_is_a_reason(root):
    (root / "good.png").chmod(0)
    if os.access(root / "good.png", os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(ImageError) as error:
        load_image(str(root), "good.png")
    assert error.value.reason == "image_unreadable"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "PPM"])
def test_no_damage_escapes_as_another_error(tmp_path, kind):
    """Cut and flipped files end as a picture or an ImageError: one bad file must not end an ingest."""
    if kind == "AVIF" and not Image.registered_extensions().get(".avif"):
        pytest.skip("this PIL has no AVIF")
    rng, whole, refused = np.random.default_rng(1), encoded(kind), 0
    for i in range(120):
        data = bytearray(whole)
        if i % 3 == 0:
            data = data[: rng.integers(1, len(data))]
        else:
            for place in rng.integers(0, min(len(data), 300), 4):
                data[place] = rng.integers(256)
        (tmp_path / "p").write_bytes(bytes(data))
        try:
            load_image(str(tmp_path), "p", max_pixels=1_000_000)
        except ImageError as error:
            refused += error.reason in ("image_truncated", "image_unreadable", "image_too_large")
    assert refused > 20


def test_a_root_in_an_object_store(root, monkeypatch):
    """No object store here: a `pyarrow.fs` sub-tree stands for the bucket, which is all that `open_fs` would return."""
    images._remote.cache_clear()
    bucket = pafs.SubTreeFileSystem(str(root), pafs.LocalFileSystem())
    monkeypatch.setattr(images, "open_fs", lambda path: (bucket, ""))
    assert np.array_equal(np.array(load_image("s3://bucket", "good.png")), NOISE)
    for relative, reason in [
        ("nothing.png", "image_missing"),
        ("../secret.png", "image_outside_root"),
        ("sub", "image_not_a_file"),
        ("fifo.png", "image_not_a_file"),
        ("empty.jpg", "image_empty"),
        ("cut.PNG", "image_truncated"),
        ("huge.png", "image_too_large"),
    ]:
        with pytest.raises(ImageError) as error:
            load_image("s3://bucket", relative)
        assert error.value.reason == reason
    images._remote.cache_clear()


def test_a_file_uri_is_no_way_around_the_links(root):
    with pytest.raises(InputError, match="plain path"):
        load_image(f"file://{root}", "outside.png")


def test_no_root_is_a_reason():
    with pytest.raises(ImageError, match="--images"):
        load_image(None, "a.png")
