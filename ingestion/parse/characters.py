"""Characters that a reader never sees are taken out before any offset is counted.

Zero-width, bidirectional control and tag characters can hide an instruction from the person who reviews a
document while a model still reads it; control characters break databases and terminals. Everything that is
visible stays as it is: no Unicode normalisation happens here.
"""

from __future__ import annotations

import re

_LINE_ENDS = re.compile("\r\n|[\r\x85\u2028\u2029]")
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PAGE_BREAKS = re.compile("[\x0b\x0c]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\ud800-\udfff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# A joiner between two letters of a script that needs it (Arabic, Indic) or between two emoji is spelling;
# anywhere else, and in runs, it is only a place to hide bits.
_JOINERS = re.compile(
    "[\u200c\u200d](?=[\u200c\u200d])|(?<![\u0300-\u1fff\u2100-\U0001ffff])[\u200c\u200d]"
    "|[\u200c\u200d](?![\u0300-\u1fff\u2100-\U0001ffff])"
)


def visible(text: str) -> str:
    """`text` with newlines as `\\n` and without invisible or control characters.

    Form feeds and vertical tabs become spaces, so the number of lines stays that of the original.
    """
    text = _LINE_ENDS.sub("\n", text) if not text.isprintable() else text
    if _CONTROLS.search(text) or "\x0b" in text or "\x0c" in text:
        text = _PAGE_BREAKS.sub(" ", _CONTROLS.sub("", _TERMINAL_CODES.sub("", text)))
    if text.isascii():
        return text
    return _JOINERS.sub("", _INVISIBLE.sub("", text))


def control_share(text: str) -> float:
    """Share of control and undecodable characters, 0..1: what tells binary data from text."""
    if not text:
        return 0.0
    return (len(_CONTROLS.findall(text)) + text.count("\ufffd")) / len(text)
