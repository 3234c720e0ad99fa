"""A table as an Excel workbook of one sheet, as a benchmark's server takes it; nothing but the standard library.

Cells are texts or whole numbers. Source of the layout: ECMA-376, parts 1 and 2.
"""

import io
import re
import zipfile
from collections.abc import Sequence
from xml.sax.saxutils import escape

from ..store.files import write_bytes

# of Excel's own, in characters; its readers cut there too
MOST = 32_767
# what no XML holds
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_MAIN, _OFFICE = (f"http://schemas.openxmlformats.org/{n}" for n in ("spreadsheetml/2006/main", "officeDocument/2006"))
_PACKAGE, _SHEET = "http://schemas.openxmlformats.org/package/2006", "application/vnd.openxmlformats-officedocument"
_PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{_SHEET}.spreadsheetml.sheet.main+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_SHEET}.spreadsheetml.worksheet+xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="rId1" '
    f'Type="{_OFFICE}/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}/relationships"><sheets>'
    '<sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="rId1" '
    f'Type="{_OFFICE}/relationships/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
}


def write_xlsx(path: str, names: Sequence[str], rows: Sequence[Sequence[str | int | None]]) -> None:
    """Write a workbook: a row of names, and a row each; None is an empty cell.

    A text is cut at 32,767 characters, and a control character that XML has no place for is U+FFFD.

    Raises: as `write_bytes`.
    """
    held = io.BytesIO()
    sheet = "".join(_row(number, row) for number, row in enumerate([names, *rows], 1))
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in _PARTS.items():
            archive.writestr(_info(name), _HEAD + text)
        whole = f'{_HEAD}<worksheet xmlns="{_MAIN}"><sheetData>{sheet}</sheetData></worksheet>'
        archive.writestr(_info("xl/worksheets/sheet1.xml"), whole)
    write_bytes(path, held.getvalue())


def _info(name: str) -> zipfile.ZipInfo:
    """Return a member without the time of writing: the same table is the same file."""
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def _row(number: int, cells: Sequence[str | int | None]) -> str:
    return f'<row r="{number}">{"".join(_cell(f"{_column(i)}{number}", c) for i, c in enumerate(cells))}</row>'


def _cell(place: str, value: str | int | None) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return f'<c r="{place}"><v>{value}</v></c>'
    text = escape(_NO_XML.sub("\ufffd", value[:MOST]), {"\r": "&#13;"})
    return f'<c r="{place}" t="inlineStr"><is><t xml:space="preserve">{text}</t></is></c>'


def _column(number: int) -> str:
    return chr(ord("A") + number)
