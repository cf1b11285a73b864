"""EML and MSG: heads, the text as its reader sees it, attachments within the same limits."""

from __future__ import annotations

import base64
import struct
from email.message import EmailMessage

import pytest

from ingestion.parse.compressed_rtf import inflate_rtf
from ingestion.parse.document import LeftOut, TextLimits
from tests.ingestion.parse.packing import compound, packed, read, refusal


def message(text: str = "Boats leave hourly.", subject: str = "Fares") -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = "Quay <quay@harbour.example>"
    mail["To"] = "all@harbour.example"
    mail["Subject"] = subject
    mail.set_content(text)
    return mail


def test_heads_and_text():
    parsed = read("a.eml", bytes(message()))
    heads = "Subject: Fares\nFrom: Quay <quay@harbour.example>\nTo: all@harbour.example"
    assert parsed.text == f"{heads}\n\nBoats leave hourly."
    assert (parsed.title, parsed.format) == ("Fares", "eml")


def test_heads_and_text_in_legacy_encodings():
    subject = "לוח זמנים"
    text = "הפגישה נדחתה ליום שלישי"
    raw = b"From: a@b.example\nSubject: =?windows-1255?B?" + base64.b64encode(subject.encode("cp1255"))
    raw += b"?=\nContent-Type: text/plain; charset=windows-1255\n\n" + text.encode("cp1255")
    parsed = read("a.eml", raw)
    assert parsed.title == subject
    assert text in parsed.text
    assert "Fahrpläne" in read("a.eml", "Subject: Fahrpläne\nFrom: a@b.c\n\nx".encode("latin-1")).text
    raw = "From: a@b.c\nSubject: 時刻表與票價\nContent-Type: text/plain; charset=big5\n\n時刻表".encode("big5")
    assert read("a.eml", raw).title == "時刻表與票價"
    assert "Words" in read("a.eml", "From: a@b.c\nSubject: Tea\n\nWords".encode("utf-16")).text


def test_of_alternatives_the_one_that_is_shown_counts():
    mail = message("plain-token")
    mail.add_alternative("<p>Shown.</p><p style='display:none'>hidden-token</p>", subtype="html")
    text = read("a.eml", bytes(mail)).text
    assert "Shown." in text
    assert "token" not in text


def test_an_invitation_is_read_as_its_reader_sees_it():
    calendar = "BEGIN:VCALENDAR\nBEGIN:VEVENT\nSUMMARY:ics-token\nEND:VEVENT\nEND:VCALENDAR\n"
    mail = message("plain-token")
    mail.add_alternative("<p>Meet at the <b>quay</b>.</p>", subtype="html")
    mail.add_alternative(calendar, subtype="calendar", params={"method": "REQUEST"})
    parsed = read("a.eml", bytes(mail))
    assert parsed.text.endswith("\n\nMeet at the quay.")
    assert "token" not in parsed.text
    mail = message("Meet at the quay.")
    mail.add_alternative(calendar, subtype="calendar")
    assert read("a.eml", bytes(mail)).text.endswith("\n\nMeet at the quay.")
    mail = message(" ")
    mail.add_alternative(calendar, subtype="calendar")
    assert "ics-token" in read("a.eml", bytes(mail)).text, "better than nothing"


def test_attachments_are_sections_and_others_are_named():
    mail = message()
    mail.add_attachment("Line,Price\nRed,4\n", subtype="csv", filename="fares.csv")
    mail.add_attachment(b"\x89PNG\r\n", maintype="image", subtype="png", filename="map.png")
    mail.add_attachment(b"junk", maintype="application", subtype="pdf", filename="plan.pdf")
    parsed = read("a.eml", bytes(mail))
    assert parsed.text.endswith("hourly.\n\nfares.csv\n\n| Line | Price |\n| --- | --- |\n| Red | 4 |")
    assert [parsed.text[b.start : b.end] for b in parsed.blocks if b.kind == "heading"] == ["fares.csv"]
    assert parsed.left_out == (LeftOut("map.png", "unsupported_type"), LeftOut("plan.pdf", "document_unreadable"))


def test_a_text_of_no_known_name_is_read_as_what_it_is_declared_to_be():
    mail = message()
    mail.add_attachment("puts 1", filename="fares.rb")
    assert read("a.eml", bytes(mail)).text.endswith("fares.rb\n\nputs 1")


def test_parts_that_are_promised_and_not_there():
    assert "Words." in read("a.eml", b"From: a@b.c\nContent-Type: multipart/mixed; boundary=x\n\nWords.").text


def test_messages_in_messages_are_read_three_deep():
    mail = message("depth 6", "level 6")
    for level in range(5, 0, -1):
        outer = message(f"depth {level}", f"level {level}")
        outer.add_attachment(mail)
        mail = outer
    parsed = read("a.eml", bytes(mail))
    assert [n for n in range(1, 7) if f"depth {n}" in parsed.text] == [1, 2, 3]
    assert parsed.left_out == (LeftOut("message level 4", "archive_too_deep"),)


def test_an_attachment_does_not_get_limits_of_its_own():
    mail = message()
    bomb = packed({f"{i}.txt": "0" * 2_000_000 for i in range(4)})
    mail.add_attachment(bomb, maintype="application", subtype="zip", filename="a.zip")
    assert refusal("a.eml", bytes(mail)) == "archive_bomb"
    nested = packed({"a.txt": "words"})
    for _ in range(3):
        nested = packed({"a.zip": nested})
    mail = message()
    mail.add_attachment(nested, maintype="application", subtype="zip", filename="a.zip")
    assert refusal("a.eml", bytes(mail)) == "archive_too_deep"


def test_messages_that_are_refused():
    parts = b"--b\nContent-Type: text/plain\n\nw\n" * 1100
    many = b"From: a@b.c\nContent-Type: multipart/mixed; boundary=b\n\n" + parts + b"--b--\n"
    assert refusal("a.eml", many) == "archive_too_many_entries"
    locked = b"From: a@b.c\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data\n\nMIIB"
    assert refusal("a.eml", locked) == "document_encrypted"
    deep = b"Content-Type: message/rfc822\n\n" * 5000
    assert refusal("a.eml", b"From: a@b.c\n" + deep) == "nested_too_deeply"
    assert refusal("a.eml", b"") == "document_empty"
    assert refusal("a.eml", b"\x01\x02\x03") == "document_unreadable"


def text_property(number: int, text: str) -> dict[str, bytes]:
    return {f"__substg1.0_{number:04X}001F": text.encode("utf-16-le")}


def table(head: int, **numbers: tuple[int, int]) -> dict[str, bytes]:
    rows = b"".join(struct.pack("<IIQ", tag, 0, value) for tag, value in numbers.values())
    return {"__properties_version1.0": b"\0" * head + rows}


def outlook(extra: dict[str, bytes], head: int = 32) -> dict[str, bytes]:
    return {
        **table(head, page=(0x3FFD0003, 1252), sent=(0x00390040, 133_000_000_000_000_000)),
        **text_property(0x0037, "Fares"),
        **text_property(0x0C1A, "Quay"),
        **text_property(0x0E04, "All"),
        **extra,
    }


def within(folder: str, streams: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": content for name, content in streams.items()}


_HEADS = "Subject: Fares\nFrom: Quay\nTo: All\nDate: 2022-06-18 04:26 UTC"
_RTF = rb"{\rtf1\ansi\fromhtml1{\*\htmltag <p>}{\htmlrtf\par\htmlrtf0} Boats {\b leave}.\par}"
_STORED = struct.pack("<4I", len(_RTF) + 12, len(_RTF), 0x414C454D, 0) + _RTF


@pytest.mark.parametrize(
    "body",
    [
        text_property(0x1000, "Boats leave."),
        {"__substg1.0_1000001E": b"Boats leave."},
        {"__substg1.0_10130102": b"<p hidden>token</p><p>Boats <b>leave</b>.</p>", **text_property(0x1000, "token")},
        {"__substg1.0_10090102": _STORED},
    ],
    ids=["unicode", "bytes", "html", "rtf"],
)
def test_an_outlook_message_in_each_form_of_its_text(body: dict[str, bytes]):
    parsed = read("a.msg", compound(outlook(body)))
    assert parsed.text == f"{_HEADS}\n\nBoats leave."
    assert (parsed.title, parsed.format) == ("Fares", "msg")


def test_attachments_of_an_outlook_message_and_messages_in_it():
    streams = outlook(text_property(0x1000, "Outer."))
    file = {**text_property(0x3707, "fares.csv"), "__substg1.0_37010102": b"Line,Price\nRed,4\n"}
    picture = {**text_property(0x3704, "map.png"), "__substg1.0_37010102": b"\x89PNG\r\n"}
    streams |= within("__attach_version1.0_#00000000", file) | within("__attach_version1.0_#00000001", picture)
    inner = outlook(text_property(0x1000, "Inner."), head=24)
    streams |= within("__attach_version1.0_#00000002/__substg1.0_3701000D", inner)
    parsed = read("a.msg", compound(streams))
    assert "fares.csv\n\n| Line | Price |" in parsed.text
    assert parsed.text.endswith(f"Fares\n\n{_HEADS}\n\nInner.")
    assert parsed.left_out == (LeftOut("map.png", "unsupported_type"),)


def test_outlook_messages_that_cannot_be_read():
    sound = compound(outlook(text_property(0x1000, "Words.")))
    assert refusal("a.msg", b"") == "document_empty"
    assert refusal("a.msg", sound[:600]) == "document_unreadable"
    assert refusal("a.msg", sound[:512] + b"\xaa" * 4000) == "document_unreadable"
    assert refusal("a.msg", compound({"Other": b"x"})) == "document_unreadable"


def test_compressed_rich_text():
    """The example of [MS-OXRTFCP] 4.1.1."""
    packed_text = bytes.fromhex(
        "2d0000002b0000004c5a4675f1c5c7a703000a007263706731323542320af32068656c090020627705b06c647d0a800fa0"
    )
    assert inflate_rtf(packed_text, TextLimits()) == b"{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n"
