"""EPUB: chapters in the order of the spine; references that lead out of the book."""

from __future__ import annotations

import pytest

from ingestion.parse.document import LeftOut
from tests.ingestion.parse.packing import packed, read, refusal

_CONTAINER = '<container><rootfiles><rootfile full-path="{}"/></rootfiles></container>'
_MEDIA = "application/epub+zip"


def book(chapters: dict[str, str], spine: list[str], opf: str = "OPS/book.opf", **parts: str) -> bytes:
    items = "".join(f'<item id="{name}" href="{name}" media-type="application/xhtml+xml"/>' for name in spine)
    order = "".join(f'<itemref idref="{name}"/>' for name in spine)
    return packed(
        {
            "mimetype": _MEDIA,
            "META-INF/container.xml": _CONTAINER.format(opf),
            "OPS/book.opf": "<package xmlns:dc='http://purl.org/dc/elements/1.1/'><metadata>"
            f"<dc:title>The Harbour</dc:title></metadata><manifest>{items}</manifest><spine>{order}</spine></package>",
            **{f"OPS/{name}": content for name, content in chapters.items()},
            **parts,
        }
    )


def test_chapters_come_in_the_order_of_the_spine():
    chapters = {"b.xhtml": "<h1>Two</h1><p>Boats.</p>", "a.xhtml": "<h1>One</h1><p hidden>secret</p><p>Quays.</p>"}
    parsed = read("a.epub", book(chapters, ["a.xhtml", "b.xhtml"]))
    assert parsed.text == "One\n\nQuays.\n\nTwo\n\nBoats."
    assert [(b.kind, b.level) for b in parsed.blocks] == [("heading", 1), ("paragraph", 0)] * 2
    assert (parsed.title, parsed.format) == ("The Harbour", "epub")


def test_a_missing_chapter_is_named():
    parsed = read("a.epub", book({"a.xhtml": "<p>Words.</p>"}, ["a.xhtml", "gone.xhtml"]))
    assert parsed.left_out == (LeftOut("OPS/gone.xhtml", "document_unreadable"),)


@pytest.mark.parametrize("reference", ["/etc/passwd", "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd"])
def test_a_reference_out_of_the_book_is_refused(reference: str):
    assert refusal("a.epub", book({}, [reference])) == "unsafe_path"
    assert refusal("a.epub", book({}, [], opf="/etc/book.opf")) == "unsafe_path"


def test_what_cannot_be_read_has_its_own_code():
    lock = '<encryption><EncryptedData><EncryptionMethod Algorithm="{}"/></EncryptedData></encryption>'
    chapters, parts = {"a.xhtml": "<p>Words.</p>"}, "META-INF/encryption.xml"
    aes, fonts = "http://www.w3.org/2001/04/xmlenc#aes256-cbc", "http://www.idpf.org/2008/embedding"
    assert refusal("a.epub", book(chapters, ["a.xhtml"], **{parts: lock.format(aes)})) == "document_encrypted"
    assert refusal("a.epub", book(chapters, ["a.xhtml"], **{parts: lock.format(fonts)})) == "Words."
    assert refusal("a.epub", packed({"mimetype": _MEDIA, "a.xhtml": "x"})) == "document_unreadable"
    assert refusal("a.epub", book({}, [])) == "document_empty"
    grown = {"mimetype": _MEDIA, "META-INF/container.xml": '<!DOCTYPE a [<!ENTITY b "c">]><container/>'}
    assert refusal("a.epub", packed(grown)) == "xml_entities"
