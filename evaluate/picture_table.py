"""Tables with pictures in their cells (base64), as MMBench is released: some 4,000 rows, 100s of MB.

A picture is put aside as a file that is named by its content, so a picture in several rows is one file. It is not opened
here: whoever shows it knows what may be (`pool/images.py`).
"""

import base64
import binascii
import hashlib
from collections.abc import Iterator

from ..pool.refusals import RefusedError
from ..store.files import exists, join, write_bytes
from .official_rows import Row
from .tab_separated import tab_rows

INDEX, IMAGE = "index", "image"
# a shorter cell names the row that has the picture
_REFERENCE = 64
_ENDINGS = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"RIFF": ".webp"}
# what pandas reads as no value, and LLaVA's script beside it (in any case of letters): an option "None" is none either
_NONE = {"", "#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "1.#ind", "1.#qnan", "<na>", "n/a", "na", "null", "nan"}
_NONE |= {"-nan", "none"}


def is_none(text: str | None) -> bool:
    """Say whether a cell has no value, as the official scripts see it: "", "NA", "nan", "None" and the like."""
    return text is None or text.lower() in _NONE


def rows_of(path: str, pictures: str, needed: tuple[str, ...]) -> Iterator[Row | RefusedError]:
    """Yield rows as texts by column; `image` is the name of the picture's file below `pictures`.

    A picture that another row has is named by that row's index there: `the_picture` says whose it is. A cell that holds no
    picture is put aside as it is, so that the question is asked of a picture that cannot be opened, and counts as wrong.

    Raises: as `tab_rows`; `index` and `image` are needed always.
    """
    for cells in tab_rows(path, (INDEX, IMAGE, *needed)):
        yield cells if isinstance(cells, RefusedError) else _row(cells, pictures)


def the_picture(rows: dict[str, str], name: str) -> str:
    """Return the picture of a cell: its own, or that of the row whose index stands there, which must have one of its own.

    Where that one is not there the name of no file comes back.
    """
    if not name.isdigit():
        return name
    other = rows.get(name, "")
    return other if other and not other.isdigit() else f"no-picture-of-row-{name}"


def _row(cells: dict[str, bytes], pictures: str) -> Row | RefusedError:
    image = cells.pop(IMAGE)
    try:
        row: Row = {n: c.decode() for n, c in cells.items()}
    except UnicodeDecodeError as error:
        return RefusedError("bad_text", f"a cell is not UTF-8 ({error.reason})")
    is_index = len(image) <= _REFERENCE and image.strip().isdigit()
    return row | {IMAGE: str(int(image)) if is_index else _put_aside(image, pictures)}


def _put_aside(cell: bytes, pictures: str) -> str:
    """Write a picture unless it is there; return its name."""
    try:
        data = base64.b64decode(cell, validate=True)
    except binascii.Error:
        data = cell
    ending = next((e for start, e in _ENDINGS.items() if data.startswith(start)), ".picture")
    name = hashlib.sha256(data).hexdigest()[:24] + ending
    if not exists(join(pictures, name)):
        write_bytes(join(pictures, name), data)
    return name
