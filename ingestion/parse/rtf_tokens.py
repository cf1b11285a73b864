"""RTF as tokens: control words, bytes of text, groups. Source: Rich Text Format Specification 1.9.1."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    rb"\\(?P<word>[a-zA-Z]{1,32})(?P<value>-?\d{1,10})? ?|\\'(?P<hex>[0-9a-fA-F]{2})|\\(?P<symbol>[^a-zA-Z])"
    rb"|(?P<brace>[{}])|(?P<text>[^\\{}\r\n]+)|(?P<skip>[\r\n\\])",
    re.S,
)
_CHARSETS = {
    0: "cp1252", 77: "mac_roman", 78: "cp932", 79: "cp949", 80: "gb18030", 81: "big5hkscs", 128: "cp932", 129: "cp949",
    130: "johab", 134: "gb18030", 136: "big5hkscs", 161: "cp1253", 162: "cp1254", 163: "cp1258", 177: "cp1255",
    178: "cp1256", 186: "cp1257", 204: "cp1251", 222: "cp874", 238: "cp1250", 255: "cp437",
}  # fmt: skip
_NAMED = {b"\n": "par", b"\r": "par"}
_CODE_PAGES = {10000: "mac_roman", 65001: "utf-8", 936: "gb18030", 949: "cp949", 950: "big5hkscs", 1361: "johab"}


@dataclass(frozen=True)
class Token:
    """One token: a control `word` with its `value`, a `symbol`, bytes of `text`, or `{` and `}` as the word."""

    word: str = ""
    value: int | None = None
    text: bytes = b""
    hexed: bool = False
    """Whether the text is one byte written as `\\'xx`."""


def tokens(data: bytes) -> Iterator[Token]:
    """The tokens of a file, binary data passed over."""
    at = 0
    while match := _TOKEN.match(data, at):
        at = match.end()
        kind = match.lastgroup
        if kind in ("word", "value"):
            word = match["word"].decode("ascii")
            value = int(match["value"]) if match["value"] is not None else None
            if word == "bin":
                at += max(value or 0, 0)
            yield Token(word, value)
        elif kind == "hex":
            yield Token(text=bytes.fromhex(match["hex"].decode("ascii")), hexed=True)
        elif kind == "symbol":
            symbol = match["symbol"]
            yield Token(text=symbol) if symbol in b"\\{}" else Token(_NAMED.get(symbol, symbol.decode("latin-1")))
        elif kind == "brace":
            yield Token(match["brace"].decode("ascii"))
        elif kind == "text":
            yield Token(text=match["text"])


def codec_of_charset(charset: int, otherwise: str) -> str:
    """The codec of a font's `\\fcharset`."""
    return _CHARSETS.get(charset, otherwise)


def codec_of_page(page: int) -> str:
    """The codec of an `\\ansicpg`; cp1252 for one that is unknown."""
    name = _CODE_PAGES.get(page, f"cp{page}")
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "cp1252"


def decode_run(data: bytes, *candidates: str) -> str:
    """Bytes of one font as text: by the first codec that fits, else by the first with marks for what does not."""
    for codec in candidates:
        try:
            return data.decode(codec)
        except UnicodeDecodeError:
            continue
    return data.decode(candidates[0], "replace")
