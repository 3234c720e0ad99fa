"""Finding and opening pictures safely: confined to their root, regular files only (or members of archives), bytes
and pixels capped before decoding.

PIL's global settings stay as they are: a tolerant decoder here would be one for the whole process.
"""

import io
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs
from PIL import Image, UnidentifiedImageError

from ..store.errors import InputError
from ..store.files import join, open_fs
from ..store.machine import raise_own
from ..store.reading import check_path, wrong
from .archives.folder import find_member, is_known, is_packed, looks_like_archive
from .archives.members import MAX_BYTES, Read, check_size
from .checks import ImageError
from .dedup import difference_hash
from .hidden import PIXEL_BYTES, TILE_BYTES, tile_bytes
from .paths import below_root, near, split_root, why_outside
from .shown import Pictures, is_deep, show, traits

# PIL warns above this (a 3-byte-pixel picture of 1/4 GiB) and refuses to open above twice as much
# bits of 64 by which two decoders may differ on one picture; two pictures differ by some 32
_SAME = 8
MAX_PIXELS = 89_478_485
PIL_LIMIT = 2 * MAX_PIXELS
# what PIL's plugins raised on 16,500 truncated and bit-flipped files of eleven formats; none of them is ours
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)
# what is opened at all; other formats of PIL's run programs (EPS) or decode to any size (JPEG 2000)
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "AVIF")  # an MPO opens as JPEG
TRAITS_KEY = "vinnow.traits"
# modes that always have an RGB
_USUAL = {"1", "L", "P", "RGB", "RGBA", "CMYK"}
_CUT = ("truncated", "broken data", "incomplete", "eof", "cut off", "unexpected end")


@dataclass(frozen=True)
class Stored:
    """A picture that is no local file; `read` fetches its bytes."""

    read: Read


@dataclass(frozen=True)
class _Root:
    """Where relative paths count from: a folder, or an archive and the path inside it. `fs`: None is local.

    `follow`: symbolic links may lead out of it.
    """

    fs: pafs.FileSystem | None
    base: str
    follow: bool = False
    archive: str = ""
    inside: tuple[str, ...] = ()


def load_image(
    root: str | None,
    relative: str,
    max_pixels: int = MAX_PIXELS,
    glance: bool = False,
    pictures: Pictures = "white",
    seen: int | None = None,
) -> Image.Image:
    """Decode a picture to RGB; `root` is a folder or an archive, also as a URI of `pyarrow.fs` (s3://…).

    `pictures`: as it shows, on a white or black ground, or as the published code reads it (`shown.py`).

    `seen`: the `difference_hash` of this file when it was looked at (`glance`) before: it must still be that picture.

    `glance`: not to show, only to see that it decodes: all of the file is, but a JPEG without its colours (a third
    less time, and the same verdict on each of 30,000 damaged files), and the usual modes are left as they are.
    `format` is kept; what is odd about it (`shown.traits`, which need the open file) stands in `info[TRAITS_KEY]`.

    Raises:
        ImageError: as `resolve`, or image_too_large (read from the header), image_truncated,
            image_unreadable, image_changed.
    """
    file = resolve(root, relative)
    with _opened(file, relative, max_pixels) as picture:
        if glance:
            picture.draft("L", None)
        picture.load()  # decodes all of it, so that a cut one is found
        odd = traits(picture) if glance else ()
        picture.load()  # looking for more frames has gone back to an unread first one
        if seen is not None and _far(difference_hash(picture), seen):
            # a JPEG's colours, or transparent parts, may move bits of a flat picture: looked at as it was then
            again = load_image(root, relative, max_pixels, glance=True)
            if _far(difference_hash(again), seen):
                raise ImageError("image_changed", f"{relative!r} is another picture than at ingest.")
        usual = glance and (picture.mode in _USUAL or is_deep(picture))
        rgb = picture if usual else show(picture, pictures)
        rgb.info[TRAITS_KEY] = odd
        rgb.format = picture.format
        return rgb


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS, pictures: Pictures = "white") -> Image.Image:
    """Decode the bytes of a picture's file to RGB, as `load_image` does; `name`: what errors call it.

    Raises:
        ImageError: image_empty, image_too_large, image_truncated or image_unreadable.
    """
    check_size(len(data), repr(name))
    with _opened(Stored(lambda: data), name, max_pixels) as picture:
        picture.load()
        return show(picture, pictures)


@contextmanager
def _opened(file: Path | Stored, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """Yield a picture of few enough pixels, not yet decoded; damage that is met while it is becomes an ImageError."""
    try:
        with Image.open(
            file if isinstance(file, Path) else io.BytesIO(file.read()), formats=known_formats()
        ) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise ImageError("image_too_large", f"{name!r} has {width}×{height} pixels, over {max_pixels}.")
            if (tile := tile_bytes(picture)) > max(TILE_BYTES, PIXEL_BYTES * max_pixels):
                raise ImageError("image_too_large", f"{name!r} is cut in tiles of {tile} bytes, for {width}×{height}.")
            yield picture
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("image_too_large", f"{name!r}: {error}") from error
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise ImageError("image_unreadable", f"{name!r} is no picture of a known format ({known}).") from error
    except _DAMAGE as error:
        raise_own(error, name)
        cut = any(w in str(error).lower() for w in _CUT)
        raise ImageError("image_truncated" if cut else "image_unreadable", f"{name!r}: {error}") from error


def picture_size(root: str | None, relative: str) -> tuple[int, int]:
    """Return a picture's width and height as its header has them; raises ImageError for what cannot be found or opened."""
    file = resolve(root, relative)
    try:
        with Image.open(
            file if isinstance(file, Path) else io.BytesIO(file.read()), formats=known_formats()
        ) as picture:
            return picture.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, UnidentifiedImageError, *_DAMAGE) as error:
        raise_own(error, relative)
        raise ImageError("image_unreadable", f"{relative!r}: {error}") from error


def _far(first: int, second: int) -> bool:
    return (first ^ second).bit_count() > _SAME


@lru_cache(1)
def known_formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that this PIL can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # PIL may be built without one


def read_image(root: str | None, relative: str) -> bytes:
    """Return a picture's file as it is.

    Raises:
        ImageError: as `resolve`, or a damaged archive.
    """
    file = resolve(root, relative)
    return file.read_bytes() if isinstance(file, Path) else file.read()


def resolve(root: str | None, relative: str) -> Path | Stored:
    """Return the file of an image path, which must stay under the root by where it really leads (`..` and symbolic links
    followed); of a root marked `links:`, links may lead out. An absolute path under the root is one of it.

    A `.tar`, `.zip` or `.parquet` file on the way, in the root or in the path, is a folder: its members are
    found by name, its links are not followed. Object stores have no links either.

    Raises:
        ImageError: image_outside_root, image_missing, image_not_a_file, image_empty, image_too_large (bytes),
            image_unreadable.
        InputError: the root itself is a compressed tar, or a file:// URI.
    """
    if root is None:
        raise ImageError("image_missing", f"{relative!r}: no image root was given (--images).")
    relative = below_root(relative, root)
    if os.path.isabs(relative) or "\0" in relative or urlsplit(relative).scheme in ("http", "https", "data", "file"):
        raise ImageError("image_outside_root", why_outside(relative))
    base = _remote(root) if "://" in root else _local(root)
    parts = PurePosixPath(relative).parts
    if ".." in parts and (base.archive or base.fs is not None):
        # names alone: nothing there can be a link
        relative = os.path.normpath(relative)
        parts = PurePosixPath(relative).parts
    if ".." in parts and (base.archive or base.fs is not None or any(map(looks_like_archive, parts))):
        raise ImageError("image_outside_root", why_outside(relative))
    if base.archive:
        return _member(root, base, base.base, base.archive, "/".join((*base.inside, *parts)))
    for i, name in enumerate(parts[:-1], 1):
        if looks_like_archive(name):
            outer = "/".join(parts[:i])
            key = (root, outer, name)
            if base.fs is None:
                if os.path.isdir(os.path.join(base.base, outer)):
                    continue
                return _member(root, base, str(_file(base, outer)[0]), name, "/".join(parts[i:]))
            if is_known(key) or _remote_size(base.fs, join(base.base, outer), outer) is not None:
                read = find_member(base.fs, join(base.base, outer), key, "/".join(parts[i:]))
                return Stored(read)
    if base.fs is not None:
        path = join(base.base, relative)
        size = _remote_size(base.fs, path, relative)
        if size is None:
            raise ImageError("image_not_a_file", f"{relative!r} is a folder or a device.")
        check_size(size, repr(relative))
        return Stored(partial(_fetch, base.fs, path))
    path, info = _file(base, relative)
    check_size(info.st_size, repr(relative))
    return path


def check_root(root: str | None, where: str) -> None:
    """See that an image root is there at all, before a stage refuses its rows one by one; `where` says whose it is.

    Raises:
        InputError: none is given, or there is no such folder or archive.
    """
    if not root:
        raise InputError(f"{where} has pictures, but no image root: give the folder that their paths count from.")
    check_path(root)
    base = _remote(root) if "://" in root else _local(root)
    if base.fs is None:
        there = os.path.exists(base.base)
    else:
        try:
            there = base.fs.get_file_info(base.base.rstrip("/")).type != pafs.FileType.NotFound
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{where}: its image root {root!r} cannot be reached: {error}.") from error
    if not there:
        raise InputError(
            f"{where}: its image root {root!r} is not there. Was the folder moved, or is a disk not mounted? Put it back, "
            "or name its new place."
        )


def _member(root: str, base: _Root, path: str, name: str, inside: str) -> Stored:
    if base.fs is not None:
        return Stored(find_member(base.fs, path, (root, name), inside))
    info = os.stat(path)
    # another file at the same path is another archive
    key = (path, str(info.st_size), str(info.st_mtime_ns), name)
    return Stored(find_member(pafs.LocalFileSystem(), path, key, inside))


def _file(base: _Root, relative: str) -> tuple[Path, os.stat_result]:
    try:
        path = (Path(base.base) / relative).resolve()
        info = path.stat() if path.is_relative_to(base.base) or _by_link(base, relative) else None
    except (FileNotFoundError, NotADirectoryError):
        meant = near(base.base, relative)
        hint = f"; did you mean {meant!r}?" if meant else f" {base.base!r}."
        raise ImageError("image_missing", f"{relative!r} is not under the image root{hint}") from None
    except (OSError, RuntimeError, ValueError) as error:  # no permission, a name too long, links in a circle
        raise_own(error, relative)
        raise ImageError("image_unreadable", f"{relative!r}: {error}.") from error
    if info is None:
        if ".." in PurePosixPath(relative).parts:
            raise ImageError("image_outside_root", why_outside(relative))
        raise ImageError(
            "image_outside_root",
            f"{relative!r} leads out of the image root by a symbolic link, to {str(path)!r}. "
            "If that is meant: --follow-links.",
        )
    if not stat.S_ISREG(info.st_mode):  # opening a FIFO would hang
        raise ImageError("image_not_a_file", f"{relative!r} is a folder, a FIFO or a device.")
    return path, info


def _by_link(base: _Root, relative: str) -> bool:
    """Say whether a path that leads out of the root may: by a link below it, not by climbing."""
    return base.follow and not os.path.normpath(relative).startswith("..")


@lru_cache(16)
def _local(root: str) -> _Root:
    root, follow = split_root(root)
    # on a network file system each part of a resolved path is a round trip: once, not once a picture
    parts = Path(os.path.abspath(root)).parts
    for i, name in enumerate(parts, 1):
        path = os.path.join(*parts[:i])
        if looks_like_archive(name) and os.path.isfile(path):
            return _Root(None, str(Path(path).resolve()), follow, _openable(root, name), parts[i:])
    return _Root(None, str(Path(root).resolve()), follow)


@lru_cache(16)
def _remote(root: str) -> _Root:
    if root.startswith("file:"):
        raise InputError(f"image root {root!r}: give a local folder as a plain path, without file://.")
    fs, inner = open_fs(root)
    parts = inner.rstrip("/").split("/")
    for i, name in enumerate(parts, 1):
        path = "/".join(parts[:i])
        if looks_like_archive(name) and fs.get_file_info(path).type == pafs.FileType.File:
            return _Root(fs, path, False, _openable(root, name), tuple(parts[i:]))
    return _Root(fs, inner)


def _openable(root: str, name: str) -> str:
    if is_packed(name):
        raise InputError(f"image root {root!r}: pictures cannot be found in a compressed tar; unpack it to a .tar.")
    return name


def _remote_size(fs: pafs.FileSystem, path: str, relative: str) -> int | None:
    """Return a file's bytes; None for a folder."""
    try:
        info = fs.get_file_info(path)
    except (pa.ArrowException, OSError) as error:
        raise ImageError("image_unreadable", f"{relative!r}: {error}.") from error
    if info.type == pafs.FileType.NotFound:
        raise ImageError("image_missing", f"{relative!r} is not under the image root.")
    return info.size if info.type == pafs.FileType.File else None


def _fetch(fs: pafs.FileSystem, path: str) -> bytes:
    try:
        with fs.open_input_stream(path, compression=None) as source:
            data = source.read(MAX_BYTES + 1)  # it may have grown since its size was asked for
    except OSError as error:
        raise_own(error, path)
        raise ImageError("image_unreadable", f"{path!r}: {wrong(error)}.") from error
    check_size(len(data), repr(path))
    return data
