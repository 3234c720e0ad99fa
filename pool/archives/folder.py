"""Archives as folders: a `.tar`, `.zip` or `.parquet` file anywhere in an image's path is opened, not unpacked."""

import threading
from pathlib import PurePosixPath

import pyarrow.fs as pafs

from ..checks import ImageError
from .members import Archive, File, Read
from .parquet import ParquetArchive
from .tar import TarArchive
from .zip import ZipArchive

_KINDS = {".tar": TarArchive, ".zip": ZipArchive, ".parquet": ParquetArchive}
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_known: dict[tuple[str, ...], Archive | ImageError] = {}
_lock = threading.Lock()


def looks_like_archive(name: str) -> bool:
    """Say whether a file of this name is opened as a folder, or refused as one."""
    return PurePosixPath(name).suffix.lower() in _KINDS or is_packed(name)


def is_packed(name: str) -> bool:
    """Say whether this is a compressed tar, in which nothing can be found without reading all before it."""
    return name.lower().endswith(_PACKED)


def is_known(key: tuple[str, ...]) -> bool:
    """Say whether this archive was opened before."""
    return key in _known


def find_member(fs: pafs.FileSystem, path: str, key: tuple[str, ...], name: str) -> Read:
    """Return what reads member `name` of the archive at `path`; `key` names its content for this process.

    The last part of the key is the archive's name, which says its kind (`path` may be where a link led).

    Raises:
        ImageError: see `Archive`; image_unreadable when the archive itself is damaged or a compressed tar.
    """
    archive = _known.get(key)
    if archive is None:
        with _lock:  # an index is made once, whoever asks first
            archive = _known.get(key) or _known.setdefault(key, _open(File(fs, path), key[-1]))
    if isinstance(archive, ImageError):
        raise ImageError(archive.reason, str(archive))
    try:
        return archive.find(name)
    except ImageError as error:
        raise ImageError(error.reason, f"{key[-1]}: {error}") from error


def _open(file: File, name: str) -> Archive | ImageError:
    if is_packed(name):
        return ImageError("image_unreadable", f"{name!r} is a compressed tar: unpack it to an uncompressed .tar.")
    try:
        return _KINDS[PurePosixPath(name).suffix.lower()](file)
    except ImageError as error:
        return error
    except OSError as error:
        return ImageError("image_unreadable", f"{name!r} cannot be read: {error}.")
