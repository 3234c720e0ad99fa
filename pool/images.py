"""Finding and opening pictures safely: confined to their root, regular files only, pixels capped before
decoding.

PIL's global settings stay as they are: a tolerant decoder here would be one for the whole process.
"""

import io
import os
import stat
import struct
import zlib
from functools import lru_cache
from pathlib import Path, PurePosixPath

import pyarrow.fs as pafs
from PIL import Image, UnidentifiedImageError

from ..store.errors import InputError
from ..store.files import join, open_fs

# PIL warns above this (a 3-byte-pixel picture of 1/4 GiB) and refuses to open above twice as much
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
# modes that always have an RGB
_USUAL = {"1", "L", "P", "RGB", "RGBA", "CMYK"}
_CUT = ("truncated", "broken data", "incomplete", "eof", "cut off", "unexpected end")


class ImageError(InputError):
    """A picture that cannot be used; `reason` is one of `checks.REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def load_image(root: str | None, relative: str, max_pixels: int = MAX_PIXELS, glance: bool = False) -> Image.Image:
    """Decode a picture to RGB; `root` is a folder, or a URI that `pyarrow.fs` knows (s3://…, gs://…).

    `glance`: not to show, only to see that it decodes: all of the file is, but a JPEG without its colours (a third
    less time, and the same verdict on each of 30,000 damaged files), and the usual modes are left as they are.
    `format` is kept.

    Raises:
        ImageError: as `resolve`, or image_too_large (read from the header), image_truncated,
            image_unreadable.
    """
    found = resolve(root, relative)
    try:
        with Image.open(found if isinstance(found, Path) else _fetch(*found)) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise ImageError("image_too_large", f"{relative!r} has {width}×{height} pixels, over {max_pixels}.")
            if glance:
                picture.draft("L", None)
            picture.load()  # decodes all of it, so that a cut one is found
            if glance and picture.mode in _USUAL:
                return picture
            rgb = picture.convert("RGB")
            rgb.format = picture.format
            return rgb
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("image_too_large", f"{relative!r}: {error}") from error
    except UnidentifiedImageError as error:
        raise ImageError("image_unreadable", f"{relative!r} is no picture of a known format.") from error
    except _DAMAGE as error:
        text = str(error)
        cut = any(w in text.lower() for w in _CUT)
        raise ImageError("image_truncated" if cut else "image_unreadable", f"{relative!r}: {text}") from error


def resolve(root: str | None, relative: str) -> Path | tuple[pafs.FileSystem, str]:
    """Return the file of a relative image path, which must stay under the root, symbolic links followed.

    Under a URI it is a file system and the path inside it; object stores have no links to follow.

    Raises:
        ImageError: image_outside_root, image_missing, image_not_a_file, image_empty, image_unreadable.
    """
    if root is None:
        raise ImageError("image_missing", f"{relative!r}: no image root was given (--images).")
    if os.path.isabs(relative) or ".." in PurePosixPath(relative).parts or "\0" in relative:
        raise ImageError("image_outside_root", f"{relative!r} is absolute or climbs out of the image root.")
    if "://" in root:
        return _resolve_remote(root, relative)
    base = _base(root)
    try:
        path = (base / relative).resolve()
        info = path.stat() if path.is_relative_to(base) else None
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError("image_missing", f"{relative!r} is not under the image root.") from None
    except (OSError, RuntimeError, ValueError) as error:  # no permission, a name too long, links in a circle
        raise ImageError("image_unreadable", f"{relative!r}: {error}.") from error
    if info is None:
        raise ImageError("image_outside_root", f"{relative!r} leads out of the image root by a symbolic link.")
    if not stat.S_ISREG(info.st_mode):  # opening a FIFO would hang
        raise ImageError("image_not_a_file", f"{relative!r} is a folder, a FIFO or a device.")
    if info.st_size == 0:
        raise ImageError("image_empty", f"{relative!r} has no bytes.")
    return path


@lru_cache(16)
def _base(root: str) -> Path:
    # on a network file system each part of a resolved path is a round trip: once, not once a picture
    return Path(root).resolve()


def _resolve_remote(root: str, relative: str) -> tuple[pafs.FileSystem, str]:
    fs, inner = _remote(root)
    path = join(inner, relative)
    try:
        info = fs.get_file_info(path)
    except OSError as error:
        raise ImageError("image_unreadable", f"{relative!r}: {error}.") from error
    if info.type == pafs.FileType.NotFound:
        raise ImageError("image_missing", f"{relative!r} is not under the image root.")
    if info.type != pafs.FileType.File:
        raise ImageError("image_not_a_file", f"{relative!r} is a folder or a device.")
    if info.size == 0:
        raise ImageError("image_empty", f"{relative!r} has no bytes.")
    return fs, path


@lru_cache(16)
def _remote(root: str) -> tuple[pafs.FileSystem, str]:
    if root.startswith("file:"):
        raise InputError(f"image root {root!r}: give a local folder as a plain path, without file://.")
    return open_fs(root)


def _fetch(fs: pafs.FileSystem, path: str) -> io.BytesIO:
    with fs.open_input_stream(path, compression=None) as source:
        return io.BytesIO(source.read())
