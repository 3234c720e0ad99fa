"""Files through `pyarrow.fs`: local paths, `s3://` and `gs://` alike; every write is a temporary file + rename."""

import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from .errors import DamagedError, InputError, VinnowError
from .machine import unwritten, writing
from .reading import check_path, parse_json, reading, refuse_irregular, wrong

# of every Parquet file of ours: a checksum a page, without which a flipped bit reads as another number
CHECKED = {"write_page_checksum": True}


def open_fs(path: str | os.PathLike[str]) -> tuple[pafs.FileSystem, str]:
    """Split a path or URI into its file system and the path inside it.

    Raises:
        InputError: the URI's scheme is unknown to `pyarrow.fs`, or it is no path at all.
    """
    text = check_path(path)
    if "://" not in text:
        return pafs.LocalFileSystem(), os.path.abspath(text)
    try:
        return pafs.FileSystem.from_uri(text)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"cannot open {text!r}: {wrong(error)}. Use a local path, s3://… or gs://….") from error


def is_uri(path: str | os.PathLike[str]) -> bool:
    """Say whether a path is a URI (s3://…), which only `pyarrow.fs` opens."""
    return "://" in os.fspath(path)


def absolute(path: str | os.PathLike[str]) -> str:
    """Return a path as processes that start in other folders find it; a URI is that already."""
    return os.fspath(path).rstrip("/") if is_uri(path) else os.path.abspath(path)


def join(root: str | os.PathLike[str], *names: str) -> str:
    """Join path parts; works for URIs too."""
    return "/".join([os.fspath(root).rstrip("/"), *names])


def exists(path: str | os.PathLike[str]) -> bool:
    """Say whether a file or a folder is there. Raises: as `look_at`."""
    return look_at(path).type != pafs.FileType.NotFound


def look_at(path: str | os.PathLike[str]) -> pafs.FileInfo:
    """Return what is at a path: its type, size and time.

    Raises:
        InputError: its file system does not say.
    """
    fs, inner = open_fs(path)
    try:
        return fs.get_file_info(inner)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"cannot look at {os.fspath(path)!r}: {wrong(error)}.") from error


def list_files(folder: str | os.PathLike[str], suffix: str = "", recursive: bool = False) -> list[str]:
    """List the files of a folder that end in `suffix`, sorted; a missing folder is empty.

    Raises:
        InputError: it is a file, or may not be read.
    """
    fs, inner = open_fs(folder)
    try:
        infos = fs.get_file_info(pafs.FileSelector(inner, allow_not_found=True, recursive=recursive))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"cannot list the folder {os.fspath(folder)!r}: {wrong(error)}.") from error
    root = os.fspath(folder).rstrip("/") if "://" in os.fspath(folder) else inner.rstrip("/")
    paths = [join(root, i.path[len(inner.rstrip("/")) + 1 :]) for i in infos if i.type == pafs.FileType.File]
    return sorted(f for f in paths if f.endswith(suffix) and ".tmp-" not in PurePosixPath(f).name)


def folder_bytes(folder: str | os.PathLike[str]) -> int:
    """Return the size of all files under a folder, in bytes."""
    sizes = []
    for path in list_files(folder, recursive=True):
        sizes.append(look_at(path).size or 0)
    return sum(sizes)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that it appears whole or not at all.

    Raises:
        WriteError: it cannot be written; nothing of it is left.
    """
    with whole_file(path) as sink:
        sink.write(data)


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[pa.NativeFile]:
    """Yield a file to write; it takes its place when the body ends well. Raises: as `write_bytes`."""
    fs, inner = open_fs(path)
    temporary = f"{inner}.tmp-{uuid.uuid4().hex[:12]}"
    try:
        fs.create_dir(str(PurePosixPath(inner).parent), recursive=True)
        with fs.open_output_stream(temporary, compression=None) as sink:
            yield sink
        _put(fs, temporary, inner)
    except VinnowError:
        _discard(fs, temporary)
        raise
    except OSError as error:
        _discard(fs, temporary)
        raise unwritten(path, error) from error
    except BaseException:
        _discard(fs, temporary)
        raise


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a whole file.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    fs, inner = open_fs(path)
    if isinstance(fs, pafs.LocalFileSystem):
        refuse_irregular(inner)
    try:
        with reading(path, "a file"), fs.open_input_stream(inner) as source:
            return source.read()
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise InputError(f"no such file: {os.fspath(path)!r}.") from error
        raise


def read_from(path: str | os.PathLike[str], begin: int) -> bytes:
    """Read a file from a byte on; a negative one counts from its end. Raises: as `read_bytes`."""
    fs, inner = open_fs(path)
    with reading(path, "a file"), fs.open_input_file(inner) as source:
        source.seek(begin if begin >= 0 else max(0, source.size() + begin))
        return source.read()


@contextmanager
def whole_folder(out: str | os.PathLike[str]) -> Iterator[str]:
    """Yield a temporary folder beside a local `out`; it becomes `out`, which must not be there, when the body ends well.

    Raises:
        WriteError: the machine refuses it, by whichever library wrote; nothing of it is left.
    """
    temporary = f"{os.path.abspath(out)}.tmp-{uuid.uuid4().hex[:8]}"
    with writing(out):
        try:
            os.makedirs(temporary)
            yield temporary
            os.replace(temporary, out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON, indented, with a stable key order. Raises: as `write_bytes`."""
    write_bytes(path, (json_text(value, sort_keys=True) + "\n").encode())


def json_text(value: Any, sort_keys: bool = False) -> str:
    """Return JSON, indented; NaN and infinity, which JSON has not, become null."""
    return json.dumps(finite(value), indent=2, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False)


def finite(value: Any) -> Any:
    """Return a plain value with null for NaN and infinity, which JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, (list, tuple)) else value


def write_lines(path: str | os.PathLike[str], rows: Iterable[Any]) -> None:
    """Write a log anew, a row a line. Raises: as `write_bytes`; the old one then stands."""
    write_bytes(path, "".join(f"{json.dumps(row)}\n" for row in rows).encode())


def append_line(path: str | os.PathLike[str], row: Any) -> None:
    """Add a row to a local log, whole or not at all: on half a line the next one would go on.

    Raises:
        WriteError: it cannot be written; the log is as it was.
    """
    data = memoryview(f"{json.dumps(row)}\n".encode())
    with writing(path), open(path, "ab", buffering=0) as sink:
        size = os.fstat(sink.fileno()).st_size
        try:
            while data:
                data = data[sink.write(data) :]
        except OSError:
            os.ftruncate(sink.fileno(), size)
            raise


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read JSON; a missing or broken file is an `InputError` that names it. Its fields: `facts.py`."""
    return parse_json(read_bytes(path), os.fspath(path))


def write_parquet(
    path: str | os.PathLike[str],
    table: pa.Table,
    split_columns: tuple[str, ...] = (),
    dictionary: bool = True,
    row_group_size: int | None = None,
) -> None:
    """Write one Parquet file whole or not at all (zstd; `split_columns` in BYTE_STREAM_SPLIT for float vectors).

    `dictionary=False` is for columns that never repeat: a dictionary of them costs time and space. Raises: as
    `write_bytes`.
    """
    fs, inner = open_fs(path)
    temporary = f"{inner}.tmp-{uuid.uuid4().hex[:12]}"
    options: dict[str, Any] = CHECKED | {"compression": "zstd", "use_dictionary": dictionary and not split_columns}
    if split_columns:
        options["use_byte_stream_split"] = list(split_columns)
    try:
        fs.create_dir(str(PurePosixPath(inner).parent), recursive=True)
        pq.write_table(table, temporary, filesystem=fs, row_group_size=row_group_size, **options)
        _put(fs, temporary, inner)
    except OSError as error:
        _discard(fs, temporary)
        raise unwritten(path, error) from error
    except BaseException:
        _discard(fs, temporary)
        raise


@contextmanager
def reading_parquet(path: str | os.PathLike[str], way_out: str, **options: Any) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file of ours; the checksums of the pages that are read are verified.

    Raises:
        DamagedError: it is no Parquet, cut off, or has other bytes than were written; `way_out` says what to do.
        InputError: there is no such file.
    """
    fs, inner = open_fs(path)
    if isinstance(fs, pafs.LocalFileSystem):
        refuse_irregular(inner)
    try:
        with fs.open_input_file(inner) as source:
            yield pq.ParquetFile(source, page_checksum_verification=True, **options)
    except FileNotFoundError as error:
        raise InputError(f"no such table: {os.fspath(path)!r}.") from error
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, VinnowError):
            raise
        why = " ".join(str(error).split()).rstrip(".")  # Arrow's may be of two lines
        raise DamagedError(f"{os.fspath(path)!r} is damaged, or no Parquet file: {why}. {way_out}") from error


def digest(*pieces: bytes | str, size: int = 8) -> str:
    """Hash parts (length-prefixed, so that borders matter) to `2 * size` hexadecimal digits."""
    h = hashlib.blake2b(digest_size=size)
    for piece in pieces:
        data = piece.encode() if isinstance(piece, str) else piece
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.hexdigest()


def _put(fs: pafs.FileSystem, temporary: str, inner: str) -> None:
    """Move a file to its place, once the disk has it: after a power cut there is the old one or the new one, whole."""
    local = isinstance(fs, pafs.LocalFileSystem)
    if local:
        _sync(temporary)
    fs.move(temporary, inner)
    if local:
        _sync(os.path.dirname(inner))


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _discard(fs: pafs.FileSystem, path: str) -> None:
    with suppress(OSError):  # what ended the writing says more
        if fs.get_file_info(path).type == pafs.FileType.File:
            fs.delete_file(path)
