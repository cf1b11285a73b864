"""XLSX, XLS and ODS: a section a sheet, filled regions as tables; and workbooks that are larger than they look."""

from __future__ import annotations

import io
import random
import struct
import zipfile

import pytest

from ingestion.parse.document import MAX_RATIO, RATIO_FLOOR, LeftOut
from tests.ingestion.parse.packing import compound, office, packed, read, refusal, relationships

_MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
_R = 'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'


def cell(reference: str, value: object) -> str:
    if isinstance(value, str):
        return f'<c r="{reference}" t="inlineStr"><is><t>{value}</t></is></c>'
    return f'<c r="{reference}"><v>{value}</v></c>'


def sheet(*cells: tuple[str, object]) -> str:
    rows: dict[int, str] = {}
    for reference, value in cells:
        number = int("".join(c for c in reference if c.isdigit()))
        rows[number] = rows.get(number, "") + cell(reference, value)
    data = "".join(f'<row r="{number}">{content}</row>' for number, content in rows.items())
    return f"<worksheet {_MAIN}><sheetData>{data}</sheetData></worksheet>"


def workbook(sheets: dict[str, str], hidden: tuple[str, ...] = (), **parts: str) -> bytes:
    names = list(sheets)
    listed = "".join(
        f'<sheet name="{name}" sheetId="{i + 1}" r:id="s{i}" state="{"hidden" if name in hidden else "visible"}"/>'
        for i, name in enumerate(names)
    )
    return office(
        {
            "xl/workbook.xml": f"<workbook {_MAIN} {_R}><sheets>{listed}</sheets></workbook>",
            "xl/_rels/workbook.xml.rels": relationships(
                **{f"s{i}": ("worksheet", f"worksheets/sheet{i}.xml") for i in range(len(names))}
            ),
            **{f"xl/worksheets/sheet{i}.xml": sheets[name] for i, name in enumerate(names)},
            **{name.replace("__", "/") + ".xml": content for name, content in parts.items()},
        },
        "xl/workbook.xml",
    )


def test_a_section_a_sheet_and_blank_rows_part_tables():
    fares = sheet(("A1", "Fares of the year"), ("A3", "Line"), ("B3", "Price"), ("A4", "Red"), ("B4", 4.5))
    document = read("fares.xlsx", workbook({"Fares": fares, "Notes": sheet(("B7", "Valid from May."))}))
    assert document.text == (
        "Fares\n\nFares of the year\n\n| Line | Price |\n| --- | --- |\n| Red | 4.5 |\n\nNotes\n\nValid from May."
    )
    assert [block.kind for block in document.blocks] == ["heading", "paragraph", "table", "heading", "paragraph"]
    assert (document.format, document.title, document.pages) == ("xlsx", None, None)


def test_a_hidden_sheet_is_left_out_and_named():
    data = workbook({"Seen": sheet(("A1", "words")), "Secret": sheet(("A1", "token"))}, hidden=("Secret",))
    document = read("a.xlsx", data)
    assert "token" not in document.text
    assert document.left_out == (LeftOut("sheet Secret", "hidden"),)


def test_empty_rows_by_the_million_cost_nothing():
    data = workbook({"S": sheet(("A1", "first"), ("A1048576", "last"))})
    assert read("a.xlsx", data).text == "S\n\nfirst\n\nlast"


def test_a_cell_far_from_the_others_is_refused_before_memory_is():
    assert refusal("a.xlsx", workbook({"S": sheet(("A1", "near"), ("XFD1048576", "far"))})) == "parser_memory"


def test_a_far_cell_without_a_value_is_nothing():
    content = sheet(("A1", "near")).replace(
        "</sheetData>", '<row r="1048576"><c r="XFD1048576" s="1"/></row></sheetData>'
    )
    assert read("a.xlsx", workbook({"S": content})).text == "S\n\nnear"


def test_workbooks_that_are_refused():
    grown = '<!DOCTYPE s [<!ENTITY a "b">]><sst/>'
    assert refusal("a.xlsx", workbook({"S": sheet(("A1", "x"))}, xl__sharedStrings=grown)) == "xml_entities"
    assert refusal("a.xlsx", workbook({"S": sheet(("A1", "x" * 5_000_000))})) == "archive_bomb"
    assert refusal("a.xlsx", workbook({"S": sheet()})) == "document_empty"
    assert refusal("a.xlsx", packed({"xl/workbook.xml": "<workbook"})) == "document_unreadable"
    assert refusal("a.xlsx", compound({"EncryptedPackage": b"x"})) == "document_encrypted"
    assert refusal("a.xlsx", b"") == "document_empty"


def record(kind: int, content: bytes = b"") -> bytes:
    return struct.pack("<HH", kind, len(content)) + content


def legacy(*, password: bool = False) -> bytes:
    """An XLS with the cells A1 "Line", B1 "Price", A2 "Red", B2 4.5 ([MS-XLS])."""
    begin = struct.pack("<HHHHII", 0x0600, 0, 0x0DBB, 0x07CC, 0, 6)
    texts = [b"Line", b"Price", b"Red"]
    table = struct.pack("<II", 3, 3) + b"".join(struct.pack("<HB", len(text), 0) + text for text in texts)
    name = struct.pack("<BB", 5, 0) + b"Fares"
    lock = record(0x2F, b"\1\0\1\0\1\0" + b"\0" * 48) if password else b""

    def globals_with(offset: int) -> bytes:
        parts = record(0x85, struct.pack("<IBB", offset, 0, 0) + name) + record(0xFC, table) + record(0x0A)
        return record(0x809, begin[:2] + b"\5\0" + begin[4:]) + lock + parts

    rows = b"".join(
        record(0xFD, struct.pack("<HHHI", row, column, 0, index))
        for row, column, index in [(0, 0, 0), (0, 1, 1), (1, 0, 2)]
    )
    number = record(0x203, struct.pack("<HHHd", 1, 1, 0, 4.5))
    body = record(0x809, begin[:2] + b"\x10\0" + begin[4:]) + rows + number + record(0x0A)
    head = globals_with(len(globals_with(0)))
    return compound({"Workbook": (head + body).ljust(4096, b"\0")})


def test_a_legacy_workbook_is_read():
    document = read("fares.xls", legacy())
    assert document.text == "Fares\n\n| Line | Price |\n| --- | --- |\n| Red | 4.5 |"
    assert document.format == "xls"


def test_a_legacy_workbook_that_cannot_be_read_has_its_own_code():
    assert refusal("a.xls", legacy(password=True)) == "document_encrypted"
    assert refusal("a.xls", legacy()[:700]) == "document_unreadable"
    assert refusal("a.xls", b"") == "document_empty"


_ODS = (
    '<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"'
    ' xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"'
    ' xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"><office:body><office:spreadsheet>'
    '<table:table table:name="Fares">{}</table:table></office:spreadsheet></office:body></office:document-content>'
)
_MANIFEST = (
    '<m:manifest xmlns:m="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"><m:file-entry m:full-path="/"'
    ' m:media-type="application/vnd.oasis.opendocument.spreadsheet">{}</m:file-entry></m:manifest>'
)


def ods(rows: str, locked: str = "") -> bytes:
    media = "application/vnd.oasis.opendocument.spreadsheet"
    return packed(
        {"mimetype": media, "META-INF/manifest.xml": _MANIFEST.format(locked), "content.xml": _ODS.format(rows)}
    )


@pytest.mark.parametrize(
    "blank", ["", '<table:table-row table:number-rows-repeated="1048000"><table:table-cell/></table:table-row>']
)
def test_an_open_document_workbook_is_read(blank: str):
    text = '<table:table-cell office:value-type="string"><text:p>{}</text:p></table:table-cell>'
    rows = "".join(
        f"<table:table-row>{''.join(map(text.format, row))}</table:table-row>"
        for row in [("Line", "Price"), ("Red", "4")]
    )
    assert read("a.ods", ods(rows + blank)).text == "Fares\n\n| Line | Price |\n| --- | --- |\n| Red | 4 |"


def test_a_part_of_an_open_document_workbook_counts_once_against_what_it_may_expand_to():
    """A table of small numbers shrinks almost to a hundredth: its bound is that of one reading."""
    cell = '<table:table-cell office:value-type="float" office:value="{0}"><text:p>{0}</text:p></table:table-cell>'
    chance = random.Random(1)
    numbers = [[chance.randint(0, 9) for _ in range(13)] for _ in range(1200)]
    rows = "".join(f"<table:table-row>{''.join(map(cell.format, row))}</table:table-row>" for row in numbers)
    data = ods(rows)
    expanded = len(_ODS.format(rows))
    assert RATIO_FLOOR < expanded < MAX_RATIO * len(data) < 2 * expanded
    assert read("a.ods", data).text.count("\n|") > 1000


def test_a_hidden_sheet_of_an_open_document_workbook_is_left_out():
    style = (
        '<office:automatic-styles xmlns:style="s"><style:style style:name="h">'
        '<style:table-properties table:display="false"/></style:style></office:automatic-styles>'
    )
    cell = "<table:table-row><table:table-cell><text:p>{}</text:p></table:table-cell></table:table-row>"
    second = '</table:table><table:table table:name="Secret" table:style-name="h">'
    tables = cell.format("seen") + second + cell.format("token")
    parts = zipfile.ZipFile(io.BytesIO(ods(tables)))
    content = parts.read("content.xml").decode().replace("<office:body>", style + "<office:body>")
    parsed = read("a.ods", packed({"mimetype": parts.read("mimetype"), "content.xml": content}))
    assert (parsed.text, parsed.left_out) == ("Fares\n\nseen", (LeftOut("sheet Secret", "hidden"),))


def test_rows_by_the_million_that_repeat_one_are_bounded():
    row = (
        '<table:table-row table:number-rows-repeated="1048576"><table:table-cell table:number-columns-repeated="16384">'
    )
    text = read("a.ods", ods(f"{row}<text:p>again</text:p></table:table-cell></table:table-row>")).text
    assert 0 < text.count("again") < 10_000


def test_an_encrypted_open_document_workbook_is_said_to_be():
    assert refusal("a.ods", ods("", locked="<m:encryption-data/>")) == "document_encrypted"
