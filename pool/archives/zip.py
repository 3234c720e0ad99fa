"""A zip as a folder: its directory is read once, members are unpacked one by one and never beyond what they declare."""

import stat
import struct
import zipfile
import zlib

from ..checks import ImageError
from .members import DAMAGE, File, Index, Read, check_size

_LOCAL = struct.Struct("<4s22xHH")  # the header in front of a member: signature, lengths of its name and extra field
_PLAIN, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_NO_FILE, _LOCKED = -1, -2
# the directory's end: its size is at byte 12; where that is all ones, a record of its own says it at byte 40
_END, _TAIL, _ONES = b"PK\5\6", 22 + 65_535 + 20, 0xFFFFFFFF
# of a directory, which Python holds in up to fourteen times as much
_DIRECTORY = 256 << 20


class ZipArchive:
    """Members by name: stored or deflated ones; zip64 is read, encryption is not."""

    def __init__(self, file: File) -> None:
        self.file = file
        index = Index(5)
        try:
            if (size := _directory_bytes(file)) > _DIRECTORY:
                raise ImageError("image_too_large", f"{file.path!r}: its directory has {size} bytes: split the zip.")
            with file.fs.open_input_file(file.path) as source, zipfile.ZipFile(source) as directory:
                for info in directory.infolist():
                    numbers = (info.header_offset, info.compress_size, info.file_size, _method(info), info.CRC)
                    index.add(info.filename.removeprefix("./").removesuffix("/"), *numbers)
        except ImageError:
            raise
        except (zipfile.BadZipFile, struct.error, *DAMAGE) as error:
            raise ImageError("image_unreadable", f"{file.path!r} is no readable zip: {error}.") from error
        self.index = index.close()

    def find(self, name: str) -> Read:
        """Return what reads a member; see `Archive`."""
        entry = self.index.find(name)
        if entry is None:
            raise ImageError("image_missing", f"no member {name!r}.")
        offset, packed, size, method, crc = entry
        if method == _NO_FILE:
            raise ImageError("image_not_a_file", f"member {name!r} is a link or a folder.")
        if method not in (_PLAIN, _DEFLATED):
            what = "encrypted" if method == _LOCKED else f"packed by method {method}"
            raise ImageError("image_unreadable", f"member {name!r} is {what}; stored and deflated ones are read.")
        check_size(size, f"member {name!r}")
        check_size(packed, f"member {name!r}, packed,")

        def read() -> bytes:
            data = _unpack(self._packed(name, offset, packed), size, method, name)
            if zlib.crc32(data) != crc:
                raise ImageError("image_unreadable", f"member {name!r}: its checksum does not match.")
            return data

        return read

    def _packed(self, name: str, offset: int, size: int) -> bytes:
        head = self.file.read_at(_LOCAL.size, offset)
        if len(head) < _LOCAL.size or not head.startswith(b"PK\3\4"):
            raise ImageError("image_unreadable", f"member {name!r} is not where the zip's directory says.")
        _, name_length, extra = _LOCAL.unpack(head)
        data = self.file.read_at(size, offset + _LOCAL.size + name_length + extra)
        if len(data) < size:
            raise ImageError("image_truncated", f"member {name!r} has {len(data)} of {size} bytes.")
        return data


def _directory_bytes(file: File) -> int:
    """Return how large a zip says that its directory is; 0 where it does not."""
    length = file.handle().size()
    start = max(0, length - _TAIL)
    tail = file.read_at(_TAIL, start)
    end = tail.rfind(_END)
    if end < 0 or len(tail) < end + 16:
        return 0
    size = int.from_bytes(tail[end + 12 : end + 16], "little")
    locator = tail[max(0, end - 20) : end]
    if size == _ONES and locator.startswith(b"PK\6\7"):
        record = file.read_at(56, int.from_bytes(locator[8:16], "little"))
        size = int.from_bytes(record[40:48], "little") if record.startswith(b"PK\6\6") else size
    return size


def _method(info: zipfile.ZipInfo) -> int:
    mode = info.external_attr >> 16
    if info.is_dir() or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
        return _NO_FILE
    return _LOCKED if info.flag_bits & 1 else info.compress_type


def _unpack(data: bytes, size: int, method: int, name: str) -> bytes:
    if method == _DEFLATED:
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = stream.decompress(data, size + 1)
        except zlib.error as error:
            raise ImageError("image_unreadable", f"member {name!r}: {error}.") from error
    if len(data) > size:
        raise ImageError("image_too_large", f"member {name!r} holds more than the {size} bytes that it declares.")
    if len(data) < size:
        raise ImageError("image_truncated", f"member {name!r} has {len(data)} of {size} bytes.")
    return data
