"""The format of a file is found by its content, then by its name."""

from __future__ import annotations

import pytest

from ingestion.parse.detect import KNOWN_TYPES, detect_format
from tenants.errors import UnsupportedType

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


@pytest.mark.parametrize(
    ("head", "filename", "declared", "expected"),
    [
        (b"hello", "a.txt", None, "txt"),
        (b"hello", "A.LOG", None, "txt"),
        (b"# hello", "a.md", "application/octet-stream", "markdown"),
        (b"hello", "README", None, "txt"),
        (b"hello", "a.unknown", "text/plain; charset=utf-8", "txt"),
        (b"hello", "notes", "text/markdown", "markdown"),
        (b"<p>x</p>", "a.htm", None, "html"),
        (b"<!-- c -->\n <!DOCTYPE HTML><p>", "page.txt", None, "html"),
        (b'<?xml version="1.0"?><html xmlns="x">', "page", None, "html"),
        ("\ufeff<html>".encode("utf-16-le"), "page", None, "html"),
        (b"<title>Readme</title>", "a.md", None, "markdown"),
        (b"%PDF-1.7", "a.txt", "text/plain", "pdf"),
        (b"junk\n%PDF-1.4", "a", None, "pdf"),
        (b"PK\x03\x04....word/document.xml", "a.zip", None, "docx"),
        (b"PK\x03\x04" + b"\0" * 100, "a.docx", None, "docx"),
        (_OLE, "locked.docx", None, "docx"),
        (b"<html>an error page</html>", "paper.pdf", "application/pdf", "pdf"),
        (b"", "empty.docx", None, "docx"),
        (b"", "empty.txt", None, "txt"),
        ("é".encode()[:1], "cut", "text/plain", "txt"),
        (b"\xff\xfe\xfd\x00", "garbage.txt", None, "txt"),
    ],
)
def test_known_types(head: bytes, filename: str, declared: str | None, expected: str):
    assert detect_format(head, filename, declared) == expected


@pytest.mark.parametrize(
    ("head", "filename", "declared"),
    [
        (b"a;b", "a.csv", None),
        (b"a;b", "a.csv", "text/csv"),
        (b"\x89PNG\r\n", "a.txt", None),
        (b"{\\rtf1", "a.txt", None),
        (b"MZ\x90\x00", "a.pdf", None),
        (b"PK\x03\x04..xl/workbook.xml", "a.docx", None),
        (b"PK\x03\x04mimetypeapplication/epub+zip", "a.docx", None),
        (b"PK\x03\x04", "a.zip", None),
        (_OLE, "old.doc", None),
        (b"\x00\x01\x02", "random", "text/plain"),
        (b"\xff\xff\xff\xff", "random", None),
        (b"<?xml version='1.0'?><feed/>", "feed.xml", None),
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
