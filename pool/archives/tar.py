"""An uncompressed tar as a folder: an index of offsets made in one pass, members read at random, nothing unpacked."""

import tarfile
from collections.abc import Iterator
from typing import Any

from ..checks import ImageError
from .members import DAMAGE, File, Index, Read, check_size

# links, devices, FIFOs, folders and sparse files: their bytes are not in one piece
NO_FILE = -1
# bytes of one member's headers, and of all global ones: parsed they take twenty times as much
_HEADER = 1 << 20


class BrokenTarError(ValueError):
    """A tar that ends where it should not, or holds something that is no header."""


class TarArchive:
    """Members by name; `./` in front of a name is left out. A tar cut off in the middle has what comes before."""

    def __init__(self, file: File) -> None:
        self.file, self.note = file, ""
        index = Index(2)
        try:
            for info in members(file):
                index.add(info.name.removeprefix("./"), info.offset_data, info.size if is_plain(info) else NO_FILE)
        except BrokenTarError as error:
            self.note = f" (the archive is damaged: {error})"
        self.index = index.close()

    def find(self, name: str) -> Read:
        """Return what reads a member; see `Archive`."""
        entry = self.index.find(name)
        if entry is None:
            raise ImageError("image_missing", f"no member {name!r}{self.note}.")
        offset, size = entry
        if size == NO_FILE:
            raise ImageError("image_not_a_file", f"member {name!r} is a link, a folder or a device.")
        check_size(size, f"member {name!r}")

        def read() -> bytes:
            data = self.file.read_at(size, offset)
            if len(data) < size:
                raise ImageError("image_truncated", f"member {name!r} has {len(data)} of {size} bytes{self.note}.")
            return data

        return read


def is_plain(info: tarfile.TarInfo) -> bool:
    """Say whether a member is a regular file whose bytes lie in one piece."""
    return info.isreg() and not info.issparse()


def members(file: File) -> Iterator[tarfile.TarInfo]:
    """Yield a tar's members in order, in constant memory; `offset_data` and `size` say where the bytes lie.

    Raises:
        BrokenTarError: no tar, cut off, or damaged on the way.
    """
    source = file.fs.open_input_file(file.path)
    try:
        headers = _Headers(source)
        with tarfile.open(fileobj=headers, mode="r:") as tar:  # pyright: ignore
            previous = -1
            while (info := tar.next()) is not None:
                tar.members.clear()  # tarfile keeps every member it met
                headers.taken = 0
                if sum(map(len, tar.pax_headers.values())) + len(tar.pax_headers) > _HEADER:
                    raise BrokenTarError("global headers of more than a megabyte")
                if tar.offset <= previous:
                    raise BrokenTarError("a header of negative size")
                previous = tar.offset
                yield info
            # tarfile takes a broken header for the end, and the file's end too; a whole tar ends in blocks of zeros
            end = source.read_at(tarfile.BLOCKSIZE, tar.offset)
            if end != bytes(tarfile.BLOCKSIZE):
                raise BrokenTarError(f"{'no header' if end else 'no end mark'} at byte {tar.offset}")
    except BrokenTarError:
        raise
    except (tarfile.TarError, *DAMAGE) as error:
        raise BrokenTarError(str(error)) from error
    finally:
        source.close()


class _Headers:
    """Reads for `tarfile`, which would take a header's word for any number of gigabytes."""

    def __init__(self, source: Any) -> None:
        self.source, self.seek, self.tell, self.close = source, source.seek, source.tell, source.close
        self.taken = 0  # since the last member: a sparse file's map is as long as it says

    def read(self, size: int) -> bytes:
        self.taken += size
        if self.taken > _HEADER:
            raise BrokenTarError(f"a header of {self.taken} bytes or more")
        return self.source.read(size)
