"""Finding and opening pictures safely: confined to their root, regular files only, pixels capped before decoding."""

import os
import stat
from pathlib import Path

from PIL import Image

from ..store.errors import InputError

# PIL's own warning limit (a 4-byte-pixel picture of 1/4 GiB)
MAX_PIXELS = 89_478_485


class ImageError(InputError):
    """A picture that cannot be used; `reason` is one of `checks.REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def resolve(root: str | None, relative: str) -> Path:
    """Return the file of a relative image path, which must stay under the root, symbolic links followed.

    Raises:
        ImageError: image_outside_root, image_missing, image_not_a_file, image_empty.
    """
    if root is None:
        raise ImageError("image_missing", f"{relative!r}: no image root was given (--images).")
    if os.path.isabs(relative) or ".." in Path(relative).parts or "\0" in relative or "\\" in relative:
        raise ImageError("image_outside_root", f"{relative!r} is absolute or climbs out of the image root.")
    base = Path(root).resolve()
    path = (base / relative).resolve()
    if not path.is_relative_to(base):
        raise ImageError(
            "image_outside_root", f"{relative!r} leads out of the image root by a symbolic link."
        )
    try:
        info = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError("image_missing", f"{relative!r} is not under the image root.") from None
    except OSError as error:
        raise ImageError("image_unreadable", f"{relative!r}: {error}.") from error
    if not stat.S_ISREG(info.st_mode):  # opening a FIFO would hang
        raise ImageError("image_not_a_file", f"{relative!r} is a folder, a FIFO or a device.")
    if info.st_size == 0:
        raise ImageError("image_empty", f"{relative!r} has no bytes.")
    return path


def load_image(root: str | None, relative: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture to RGB.

    Raises:
        ImageError: as `resolve`, or image_too_large (read from the header), image_truncated, image_unreadable.
    """
    path = resolve(root, relative)
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise ImageError(
                    "image_too_large", f"{relative!r} has {width}×{height} pixels, over {max_pixels}."
                )
            picture.load()
            return picture.convert("RGB")
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("image_too_large", f"{relative!r}: {error}") from error
    # PIL's plugins raise a wide range on damaged data (struct.error, SyntaxError, EOFError, …), none of them ours
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        KeyError,
        IndexError,
        ArithmeticError,
        MemoryError,
    ) as error:
        text = str(error)
        cut = any(w in text.lower() for w in ("truncated", "broken data", "incomplete", "eof", "cut off"))
        raise ImageError("image_truncated" if cut else "image_unreadable", f"{relative!r}: {text}") from error
