"""Cells of a Parquet row → values that JSON holds; pictures inside → references, numbered as their archive does."""

import base64
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from ..refusals import RefusedError

# a longer cell of bytes is told by its size alone
_BYTES = 4096
# how the files of the usual picture formats begin
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\x00", b"MM\x00*")


def is_picture(kind: pa.DataType) -> bool:
    """Say whether a type is a struct{bytes, path}."""
    return pa.types.is_struct(kind) and {f.name for f in kind} in ({"bytes", "path"}, {"bytes"})


def element(kind: pa.DataType) -> pa.DataType | None:
    """Return what a list's items are; None for no list."""
    tests = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    return kind.value_type if any(getattr(pa.types, t)(kind) for t in tests) else None


def has_pictures(kind: pa.DataType) -> bool:
    """Say whether a type is, or holds, a struct{bytes, path}."""
    if (inner := element(kind)) is not None:
        return has_pictures(inner)
    return is_picture(kind) or (pa.types.is_struct(kind) and any(has_pictures(f.type) for f in kind))


def plain(value: Any, kind: pa.DataType, refer: Callable[[Any], Any]) -> Any:
    """Return a value as JSON holds it: dates and decimals as text, bytes as base64, pictures as `refer` says.

    Raises:
        RefusedError: plain bytes that are a picture's.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if is_picture(kind):
        return refer(value)
    if (inner := element(kind)) is not None:
        return [plain(v, inner, refer) for v in value]
    if pa.types.is_struct(kind):
        return {f.name: plain(value.get(f.name), f.type, refer) for f in kind}
    if pa.types.is_map(kind):
        return {str(k): plain(v, kind.item_type, refer) for k, v in value}
    if pa.types.is_dictionary(kind):
        return plain(value, kind.value_type, refer)
    if isinstance(value, bytes):
        if value.startswith(_MAGIC) or (value[:4] == b"RIFF" and value[8:12] == b"WEBP"):
            raise RefusedError(
                "bad_image", "a column of plain bytes holds a picture, which is not read: call it `image`, or `images`."
            )
        return base64.b64encode(value).decode() if len(value) <= _BYTES else f"{len(value)} bytes"
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
