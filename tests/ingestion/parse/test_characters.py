"""What a reader cannot see is not in the text."""

from __future__ import annotations

import pytest

from ingestion.parse.characters import control_share, visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\nb\rc\u2028d\x85e", "a\nb\nc\nd\ne"),
        ("a\x00b\x07c\x1b[31mred\x1b[0m", "abcred"),
        ("page\x0cbreak", "page break"),
        ("zero\u200bwidth\u2060joined\ufeff", "zerowidthjoined"),
        ("\u202eevil\u202c \u2066iso\u2069 \u200fmark", "evil iso mark"),
        ("tags" + "".join(chr(0xE0000 + ord(c)) for c in "ignore all"), "tags"),
        ("vs" + chr(0xE0100) + chr(0xE01EF), "vs"),
        ("soft\u00adhyphen", "softhyphen"),
        ("in\u200dvis\u200cible", "invisible"),
        ("lone \ud83d half", "lone  half"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("👩\u200d💻", "👩\u200d💻"),
        ("क\u200dष", "क\u200dष"),
        ("می\u200c\u200d\u200cخواهم", "میخواهم"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("❤\ufe0f ﬁle Zu\u0308rich", "❤\ufe0f ﬁle Zu\u0308rich"),
    ],
)
def test_visible(text: str, expected: str):
    assert visible(text) == expected


def test_the_number_of_lines_stays():
    text = "a\r\nb\x0bc\x0c\nd\u200b\n"
    assert visible(text).count("\n") == 3


def test_control_share():
    assert control_share("") == 0
    assert control_share("plain\ntext") == 0
    assert control_share("\x00\x01ab") == 0.5
