"""RTF: text in every encoding that it knows, tables, notes, hidden text."""

from __future__ import annotations

import pytest

from tests.ingestion.parse.packing import read, refusal

_FONTS = (
    rb"{\fonttbl{\f0\fcharset0 Times;}{\f1\fcharset204 Arial;}{\f2\fcharset128 Mincho;}{\f3\fcharset136 MingLiU;}"
    rb"{\f4\fcharset134 SimSun;}{\f5\fcharset177 David;}}"
)


def rtf(body: bytes, head: bytes = b"") -> bytes:
    return rb"{\rtf1\ansi\ansicpg1252\deff0" + _FONTS + head + body + b"}"


def hexed(text: str, codec: str) -> bytes:
    return b"".join(b"\\'%02x" % byte for byte in text.encode(codec))


@pytest.mark.parametrize(
    ("font", "codec", "text"),
    [
        (0, "cp1252", "Café"),
        (1, "cp1251", "Билеты"),
        (2, "cp932", "処刑記録ソ"),
        (3, "big5", "時刻表"),
        (4, "gbk", "时刻表"),
        (5, "cp1255", "כרטיס"),
    ],
)
def test_bytes_are_read_in_the_charset_of_their_font(font: int, codec: str, text: str):
    assert read("a.rtf", rtf(b"\\f%d " % font + hexed(text, codec))).text == text


def test_the_second_byte_of_a_character_may_be_a_plain_letter():
    raw = "ソ表能".encode("cp932")  # their second bytes are a backslash, another and "\"
    written = b"".join(b"\\'%02x" % byte if byte > 0x7F or byte == 0x5C else bytes([byte]) for byte in raw)
    assert read("a.rtf", rtf(b"\\f2 " + written)).text == "ソ表能"


def test_unicode_wins_over_what_older_readers_are_given():
    body = rb"\uc1 Preis 5\u8364?, \u-10179?\u-8704? {\uc2\u960 pi} ok"
    assert read("a.rtf", rtf(body)).text == "Preis 5€, 😀 π ok"
    assert read("a.rtf", rtf(rb"{\upr{caf?}{\*\ud{caf\u233?}}}")).text == "café"


def test_headings_tables_and_notes():
    head = rb"{\stylesheet{\s1 heading 1;}{\s2\outlinelevel1 Chapter;}}{\info{\title Harbour}}"
    body = (
        rb"\pard\s1 Fares\par\pard\s2 Adults\par\pard Four euros.{\footnote Since May.}\par"
        rb"\trowd\pard\intbl Line\cell Price\cell\row\pard\intbl Red\cell 4\cell\row\pard End.\par"
        rb"{\header Page top\par}"
    )
    parsed = read("a.rtf", rtf(body, head))
    table = "| Line | Price |\n| --- | --- |\n| Red | 4 |"
    assert parsed.text == f"Fares\n\nAdults\n\nFour euros.\n\n* Since May.\n\n{table}\n\nEnd.\n\nPage top"
    assert [(b.kind, b.level) for b in parsed.blocks[:2]] == [("heading", 1), ("heading", 2)]
    assert (parsed.title, parsed.format) == ("Harbour", "rtf")


def test_what_nobody_sees_is_left_out():
    head = rb"{\colortbl;\red255\green255\blue255;\red0\green0\blue0;}"
    body = (
        rb"Seen{\v vanish}{\cf1 white}{\fs2 tiny}{\deleted gone}{\*\comment x}{\annotation note}"
        rb"{\field{\*\fldinst HYPERLINK}{\fldrslt link}}{\pict 00ff}{\cf2  black}"
        rb"{\object{\*\objdata 00ff}}"
    )
    assert read("a.rtf", rtf(body, head)).text == "Seenlink black"


def test_a_line_end_after_a_backslash_ends_the_paragraph():
    assert read("a.rtf", rtf(b"One\\\nTwo\\\r\nThree")).text == "One\n\nTwo\n\nThree"


def test_binary_data_is_passed_over():
    assert read("a.rtf", rtf(b"{\\pict\\bin6 }}{{\\\\ }Words")).text == "Words"


def test_what_cannot_be_read_has_its_own_code():
    assert refusal("a.rtf", b"") == "document_empty"
    assert refusal("a.rtf", b"plain words") == "document_unreadable"
    assert refusal("a.rtf", rtf(rb"\par")) == "document_empty"
    assert refusal("a.rtf", rtf(b"{" * 6000 + b"x")) == "nested_too_deeply"
    assert read("a.rtf", rtf(b"Words") + b"}}}}").text == "Words"
