"""The format of a file is found by its content, then by its name."""

from __future__ import annotations

import io
import zipfile

import pytest

from ingestion.parse.detect import HEAD_BYTES, detect_format
from ingestion.parse.formats import KNOWN_TYPES
from tenants.errors import UnsupportedType

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def packed(*names: str, first: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, first if name == "mimetype" else "x")
    return buffer.getvalue()


def compound(*names: str) -> bytes:
    return _OLE + b"\0" * 504 + b"\0\0".join(name.encode("utf-16-le") for name in names)


_OFFICE = ("[Content_Types].xml", "_rels/.rels")


@pytest.mark.parametrize(
    ("head", "filename", "declared", "expected"),
    [
        (b"hello", "a.txt", None, "txt"),
        (b"hello", "A.LOG", None, "txt"),
        (b"# hello", "a.md", "application/octet-stream", "markdown"),
        (b"hello", "README", None, "txt"),
        (b"hello", "a.unknown", "text/plain; charset=utf-8", "txt"),
        (b"hello", "notes", "text/markdown", "markdown"),
        (b"a;b", "a.csv", None, "csv"),
        (b"a;b", "a", "text/csv", "csv"),
        (b"a\tb", "a.tsv", None, "tsv"),
        (b"{}", "a.json", None, "json"),
        (b"{}", "a.ndjson", None, "jsonl"),
        (b"<p>x</p>", "a.htm", None, "html"),
        (b"<!-- c -->\n <!DOCTYPE HTML><p>", "page.txt", None, "html"),
        (b'<?xml version="1.0"?><html xmlns="x">', "page", None, "html"),
        ("\ufeff<html>".encode("utf-16-le"), "page", None, "html"),
        (b"<title>Readme</title>", "a.md", None, "markdown"),
        (b"<?xml version='1.0'?><feed/>", "feed.xml", None, "xml"),
        (b"<?xml version='1.0'?><feed/>", "feed", None, "xml"),
        (b"%PDF-1.7", "a.txt", "text/plain", "pdf"),
        (b"junk\n%PDF-1.4", "a", None, "pdf"),
        (b"{\\rtf1", "a.doc", None, "rtf"),
        (b"From: a@b.c\nTo: d@e.f\nSubject: Tea\n\nHi", "saved", None, "eml"),
        (b"From: a@b.c\nTo: d@e.f\nSubject: Tea\n\nHi", "saved.txt", None, "txt"),
        (packed(*_OFFICE, "word/document.xml"), "a.zip", None, "docx"),
        (packed("word/document.xml"), "a.docx", None, "docx"),
        (packed("word/document.xml"), "folders.zip", None, "zip"),
        (packed(*_OFFICE, "xl/workbook.xml"), "a.docx", None, "xlsx"),
        (packed(*_OFFICE, "ppt/presentation.xml"), "a", None, "pptx"),
        (packed("mimetype", "META-INF/container.xml", first="application/epub+zip"), "a.docx", None, "epub"),
        (packed("mimetype", "x", first="application/vnd.oasis.opendocument.text"), "a.zip", None, "odt"),
        (packed("mimetype", first="application/vnd.oasis.opendocument.spreadsheet-template"), "a", None, "ods"),
        (packed("mimetype", first="application/vnd.oasis.opendocument.presentation"), "a", None, "odp"),
        (packed("a.txt"), "a.pdf", None, "zip"),
        (b"PK\x03\x04" + b"\0" * 100, "a.docx", None, "docx"),
        (b"PK\x03\x04", "a.zip", None, "zip"),
        (_OLE, "locked.docx", None, "docx"),
        (compound("EncryptedPackage"), "locked.xlsx", None, "xlsx"),
        (compound("Workbook"), "a.bin", None, "xls"),
        (compound("Workbook", "WordDocument"), "a.xls", None, "xls"),
        (compound("__properties_version1.0"), "mail", None, "msg"),
        (b"<html>an error page</html>", "paper.pdf", "application/pdf", "pdf"),
        (b"", "empty.docx", None, "docx"),
        (b"", "empty.txt", None, "txt"),
        ("é".encode()[:1], "cut", "text/plain", "txt"),
        (b"\xff\xfe\xfd\x00", "garbage.txt", None, "txt"),
    ],
)
def test_known_types(head: bytes, filename: str, declared: str | None, expected: str):
    assert detect_format(head, filename, declared, head[-HEAD_BYTES:]) == expected


def test_an_archive_within_an_archive_is_not_mistaken_for_the_outer_one():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        file.writestr("report.docx", packed(*_OFFICE, "word/document.xml"))
    assert detect_format(buffer.getvalue(), "a.zip", None, buffer.getvalue()) == "zip"


def test_parts_far_from_the_head_are_found_in_the_directory():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("_rels/.rels", "x")
        file.writestr("media/picture", b"\0" * 200_000)
        file.writestr("ppt/presentation.xml", "x")
    data = buffer.getvalue()
    assert detect_format(data[:HEAD_BYTES], "a", None, data[-HEAD_BYTES:]) == "pptx"


@pytest.mark.parametrize(
    ("head", "filename", "declared"),
    [
        (b"\x89PNG\r\n", "a.txt", None),
        (b"MZ\x90\x00", "a.pdf", None),
        (_OLE, "old.doc", None),
        (compound("WordDocument"), "a.docx", None),
        (packed("META-INF/MANIFEST.MF", "A.class"), "a.jar", None),
        (b"\x00\x01\x02", "random", "text/plain"),
        (b"\xff\xff\xff\xff", "random", None),
        (b"a: 1", "settings.ini", None),
    ],
)
def test_unknown_types_are_refused_with_the_list_of_known_ones(head: bytes, filename: str, declared: str | None):
    with pytest.raises(UnsupportedType) as caught:
        detect_format(head, filename, declared)
    assert caught.value.status == 415
    assert KNOWN_TYPES in caught.value.detail


@pytest.mark.parametrize("unit", [b"<!-- -->", b"<!--", b" ", b"<?xml ", b"<?xml?>"])
def test_a_hostile_head_costs_one_pass(unit: bytes):
    """With a pattern that tries again what it skipped, the first of these would not end."""
    head = (unit * 70_000)[: 64 * 1024]
    assert detect_format(head, "page.txt", None) == "txt"
