"""XLSX, XLS and XLSB: a section a sheet, its filled regions as tables."""

from __future__ import annotations

import datetime
import io
import re
import struct
from collections.abc import Callable

import python_calamine as calamine

from ingestion.parse.archive import Archive
from ingestion.parse.builder import DocumentBuilder, empty_document
from ingestion.parse.compound_file import CompoundFile
from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.office import OLE, core_title, legacy_office
from ingestion.parse.rejections import damaged, rejected
from ingestion.parse.sheet_rows import add_sheet

_WHAT = "spreadsheet"
_ERRORS = (
    calamine.CalamineError,
    calamine.XmlError,
    calamine.ZipError,
    calamine.WorksheetNotFound,
    OSError,
    ValueError,
)
_VISIBLE = calamine.SheetVisibleEnum.Visible
_MAX_SHEETS = 1000
_RECORD, _FILE_PASS, _FIRST_RECORDS = struct.Struct("<HH"), 0x2F, 10
_SHEET_PART = re.compile(r"xl/worksheets/[^/]+\.xml")
_FILLED_CELL = re.compile(rb"<(?:\w+:)?c\b[^>]*?\br=\"([A-Z]{1,3})(\d{1,7})\"[^>]*(?<!/)>")
_MAX_AREA = 10_000_000
"""Cells of the rectangle around a sheet's filled ones, all of which the library holds in memory."""

Cell = object


def parse_xlsx(data: bytes, limits: TextLimits) -> ParsedDocument:
    """See `_parse`; an XLSX is inflated once to count its bytes before the library sees it."""
    if not data:
        raise empty_document()
    if data.startswith(OLE):
        raise legacy_office(data)
    archive = Archive(data, limits, what=_WHAT)
    for name, content in archive.checked_parts():
        if _SHEET_PART.fullmatch(name):
            _refuse_far_cells(content)
    return _parse(data, "xlsx", limits, core_title(archive) or "")


def parse_xls(data: bytes, limits: TextLimits) -> ParsedDocument:
    """See `_parse`."""
    if not data:
        raise empty_document()
    workbook = CompoundFile(data, what=_WHAT)
    if _is_locked(workbook.read("Workbook") or workbook.read("Book") or b""):
        raise rejected("document_encrypted")
    return _parse(data, "xls", limits, "")


def _is_locked(stream: bytes) -> bool:
    """Whether a password is asked for: by a record among the first ([MS-XLS] 2.4.117)."""
    at = 0
    for _ in range(_FIRST_RECORDS):
        if len(stream) - at < _RECORD.size:
            break
        kind, length = _RECORD.unpack_from(stream, at)
        if kind == _FILE_PASS:
            return True
        at += _RECORD.size + length
    return False


def _parse(data: bytes, format_name: str, limits: TextLimits, title: str) -> ParsedDocument:
    """Values as they are stored, dates in ISO 8601; formulas give what they last gave. Blank rows part tables.

    Hidden sheets are left out and said to be so. Raises DocumentRejected: document_encrypted, document_unreadable,
    document_too_long.
    """
    try:
        book = calamine.load_workbook(io.BytesIO(data))
    except calamine.PasswordError as error:
        raise rejected("document_encrypted") from error
    except _ERRORS as error:
        raise damaged(_WHAT) from error
    builder = DocumentBuilder(format_name, limits)
    for sheet in book.sheets_metadata[:_MAX_SHEETS]:
        if sheet.visible != _VISIBLE:
            builder.leave_out(f"sheet {sheet.name}", "hidden")
        elif sheet.typ == calamine.SheetTypeEnum.WorkSheet:
            _add_sheet(builder, book, sheet.name, limits)
    builder.title = title
    return builder.build()


def _refuse_far_cells(sheet: bytes) -> None:
    """Raises DocumentRejected(parser_memory) when one cell far from the others makes a sheet larger than memory."""
    last_row = last_column = 0
    for match in _FILLED_CELL.finditer(sheet):
        last_row = max(last_row, int(match[2]))
        last_column = max(last_column, sum(26**i * (c - 64) for i, c in enumerate(reversed(match[1]))))
    if last_row * last_column > _MAX_AREA:
        raise rejected(
            "parser_memory", "A sheet has cells too far from one another; delete those that stand beside its table."
        )


def _add_sheet(builder: DocumentBuilder, book: calamine.CalamineWorkbook, name: str, limits: TextLimits) -> None:
    try:
        rows = book.get_sheet_by_name(name).iter_rows()
        add_sheet(builder, name, ([_shown(cell) for cell in row] for row in rows), limits)
    except _ERRORS:
        builder.leave_out(f"sheet {name}", "document_unreadable")


def _shown(cell: Cell) -> str:
    show = _SHOWN.get(type(cell))
    return show(cell) if show is not None else " ".join(str(cell).split())


def _number(cell: Cell) -> str:
    return f"{cell:.15g}"


def _moment(cell: Cell) -> str:
    return str(cell)


_SHOWN: dict[type, Callable[[Cell], str]] = {
    float: _number,
    int: str,
    bool: lambda cell: "TRUE" if cell else "FALSE",
    datetime.datetime: _moment,
    datetime.date: _moment,
    datetime.time: _moment,
    datetime.timedelta: _moment,
}
