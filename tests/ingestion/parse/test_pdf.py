"""PDF: pages, headings, joined words, tables; and files that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.hyphens import BREAK, join_hyphenated
from ingestion.parse.pdf import parse_pdf
from tenants.errors import DocumentRejected


@dataclass(frozen=True)
class Words:
    """Words at a place of a page, in points from its lower left corner."""

    text: str
    x: float = 72
    y: float = 700
    size: float = 11
    bold: bool = False


def pdf(*pages: list[Words], rotate: int = 0, extra: str = "", trailer: str = "") -> bytes:
    """A small PDF 1.4 in Helvetica. `extra` goes into the catalogue, `trailer` into the trailer."""
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R {extra} >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{' '.join(f'{5 + 2 * i} 0 R' for i in range(len(pages)))}] >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold >>",
    ]
    for i, page in enumerate(pages):
        fonts = "/Resources << /Font << /F1 3 0 R /F2 4 0 R >> >>"
        place = f"/MediaBox [0 0 612 792] /Rotate {rotate}"
        objects.append(f"<< /Type /Page /Parent 2 0 R {place} {fonts} /Contents {6 + 2 * i} 0 R >>")
        content = "\n".join(
            f"BT /F{2 if words.bold else 1} {words.size} Tf {words.x} {words.y} Td ({_escaped(words.text)}) Tj ET"
            for words in page
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    out = "%PDF-1.4\n"
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    root = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>"
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{root}\nstartxref\n{len(out)}\n%%EOF"
    return out.encode("latin-1")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


def lines(*texts: str, y: float = 700, x: float = 72, size: float = 11) -> list[Words]:
    return [Words(text, x=x, y=y - 14 * i, size=size) for i, text in enumerate(texts)]


def parsed(data: bytes) -> ParsedDocument:
    return parse_pdf(data, TextLimits())


def shown(document: ParsedDocument) -> list[tuple[str, int, int | None, str]]:
    return [(b.kind, b.level, b.page, document.text[b.start : b.end]) for b in document.blocks]


BODY = (
    "The ferry leaves the northern pier at a quarter past nine every weekday",
    "morning, and passengers should be there ten minutes earlier than that.",
)


def test_headings_by_size_and_weight_and_paragraphs_with_their_pages():
    document = parsed(
        pdf(
            [Words("Harbour handbook", y=740, size=22), Words("Departures", y=700, size=15), *lines(*BODY, y=670)],
            [Words("Fares", y=740, bold=True), *lines(*BODY, y=710), *lines("A second paragraph.", y=660)],
        )
    )
    text = " ".join(BODY)
    assert shown(document) == [
        ("heading", 1, 1, "Harbour handbook"),
        ("heading", 2, 1, "Departures"),
        ("paragraph", 0, 1, text),
        ("heading", 3, 2, "Fares"),
        ("paragraph", 0, 2, text),
        ("paragraph", 0, 2, "A second paragraph."),
    ]
    assert document.title == "Harbour handbook"
    assert document.pages == 2


def test_the_outline_says_what_the_headings_are():
    outline = "/Outlines << /Type /Outlines /First 90 0 R /Last 90 0 R /Count 1 >>"
    data = pdf([*lines("1. Departures", y=740), *lines(*BODY, y=700)], extra=outline)
    entry = b"90 0 obj\n<< /Title (Departures) /Dest [5 0 R /Fit] >>\nendobj\n"
    start = data.index(b"xref\n0")
    broken_table = data[:start] + entry + data[start:].replace(b"startxref", b"startxref\n0\n%")
    assert shown(parsed(broken_table))[0] == ("heading", 1, 1, "1. Departures")


def test_words_broken_at_line_ends_are_joined():
    document = parsed(pdf(lines("The harbour master keeps a register of every pas-", "senger who boards the ferry.")))
    assert document.text == "The harbour master keeps a register of every passenger who boards the ferry."


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        (f"pas{BREAK}senger", "passenger"),
        (f"dual{BREAK}encoder. A dual-encoder", "dual-encoder. A dual-encoder"),
        (f"Lucene{BREAK}BM25", "Lucene-BM25"),
        (f"d{BREAK}dimensional", "d-dimensional"),
        (f"re{BREAK}\nread", "reread"),
        (f"Mc{BREAK}Donald. McDonald", "McDonald. McDonald"),
        (f"left {BREAK} alone", "left - alone"),
    ],
)
def test_the_document_decides_about_a_hyphen(text: str, joined: str):
    assert join_hyphenated([text]) == [joined]


def test_columns_of_words_are_a_table():
    rows = [("Zone", "Day", "Price"), ("A", "Monday", "3.20"), ("B", "Sunday", "12.40")]
    table = [
        Words(cell, x=72 + 150 * column, y=600 - 16 * row)
        for row, cells in enumerate(rows)
        for column, cell in enumerate(cells)
    ]
    document = parsed(pdf([*lines(*BODY, y=700), *table, *lines("After the table.", y=500)]))
    assert [(kind, text) for kind, _, _, text in shown(document)] == [
        ("paragraph", " ".join(BODY)),
        ("table", "| Zone | Day | Price |\n| --- | --- | --- |\n| A | Monday | 3.20 |\n| B | Sunday | 12.40 |"),
        ("paragraph", "After the table."),
    ]


def test_items_are_a_list():
    document = parsed(
        pdf(lines("Bring:", "- a ticket that is valid on the day of the journey and", "  a pass", "- a coat"))
    )
    assert document.text.endswith("- a ticket that is valid on the day of the journey and a pass\n- a coat")
    assert document.blocks[-1].kind == "list"


def test_running_titles_are_kept_once():
    pages = [
        [*lines("Harbour handbook 2024", y=770), *lines(*BODY), *lines(f"Page {number}", y=40)]
        for number in range(1, 6)
    ]
    document = parsed(pdf(*pages))
    assert document.text.count("Harbour handbook 2024") == 1
    assert document.text.count("Page ") == 1
    assert document.text.count(BODY[0]) == 5


def test_what_the_edges_of_pages_say_is_no_running_title():
    """One invoice a page: its number and its total are facts, in whatever steps they grow."""
    totals = ("113.50", "98.00", "113.51", "7.25")
    pages = [
        [
            *lines(f"Invoice {1007 + at}", y=770),
            *lines(f"Order {31 * at + 5}", *BODY),
            *lines(f"Total: {total} EUR", y=40),
        ]
        for at, total in enumerate(totals)
    ]
    text = parsed(pdf(*pages)).text
    for at, total in enumerate(totals):
        assert f"Invoice {1007 + at}" in text
        assert f"Total: {total} EUR" in text


def test_page_numbers_go_with_the_titles_beside_them():
    pages = [
        [
            Words("Journal of Harbours", y=770),
            Words(str(1244 + number), x=450, y=770),
            *lines(*BODY),
            *lines(f"Draft, page {number} of 5", y=40),
        ]
        for number in range(1, 6)
    ]
    text = parsed(pdf(*pages)).text
    assert text.count("Journal of Harbours") == text.count("Draft, page") == 1
    alone = [[*lines(*BODY), *lines(str(311 + number), y=40)] for number in range(1, 6)]
    assert "31" not in parsed(pdf(*alone)).text


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_turned_pages_read_the_same(rotate: int):
    document = parsed(pdf([Words("Fares", y=740, size=20), *lines(*BODY, y=700)], rotate=rotate))
    assert "Fares" in document.text
    assert BODY[0] in document.text


def test_a_picture_of_text_needs_recognition():
    with pytest.raises(DocumentRejected) as caught:
        parsed(pdf([], [Words("  ")]))
    assert caught.value.code == "needs_ocr"


def test_a_password_is_asked_for():
    key = "/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <{0}> /U <{0}> >> /ID [<{0}> <{0}>]".format("41" * 32)
    with pytest.raises(DocumentRejected) as caught:
        parsed(pdf([Words("secret")], trailer=key))
    assert caught.value.code == "document_encrypted"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "document_empty"),
        (b"%PDF-1.4\nnothing else", "document_unreadable"),
        (b"<html>an error page</html>", "document_unreadable"),
        (pdf([Words("x")])[:200], "document_unreadable"),
    ],
)
def test_what_cannot_be_read_has_its_own_code(data: bytes, code: str):
    with pytest.raises(DocumentRejected) as caught:
        parsed(data)
    assert caught.value.code == code


def test_too_many_pages_and_too_much_text_are_refused():
    data = pdf(*[lines(f"{['one', 'two', 'three', 'four'][i]}: {BODY[0]}") for i in range(4)])
    for limits in (TextLimits(max_pages=3), TextLimits(max_text_chars=200)):
        with pytest.raises(DocumentRejected) as caught:
            parse_pdf(data, limits)
        assert caught.value.code == "document_too_long"
