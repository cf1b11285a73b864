"""Bytes to text: byte-order mark, UTF-8, the declared encoding, then statistics; never a guess that garbles."""

from __future__ import annotations

import codecs
import re

from charset_normalizer import from_bytes

from ingestion.parse.characters import control_share
from ingestion.parse.rejections import rejected

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What a label means in practice (WHATWG Encoding Standard, section 4.2): the Windows superset.
_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}
_STATEFUL = re.compile(r"iso2022|hz")
_REFUSED = frozenset({"utf-7", "unicode-escape", "raw-unicode-escape", "idna", "punycode", "undefined"})
_MAX_CONTROL_SHARE = 0.05
_MAX_WESTERN_SHARE = 0.4
_WESTERN_SIGNS = frozenset("€‚„…†‡‰‹›‘’“”•–—™ ¡¢£¥§©«®°±·»¿×÷")
_SAMPLE = 64 * 1024


def decode_text(data: bytes, declared: str | None = None) -> str:
    """The text of `data`; `declared` is a charset label found in the content.

    Valid UTF-8 wins over a declared single-byte encoding, since text of the one almost never happens to be
    valid in the other, while wrong labels are common. Raises DocumentRejected(document_encoding) when no
    encoding fits or the content is binary.
    """
    for candidate in _candidates(data, _codec(declared)):
        text = _strict(data, candidate)
        if text is not None and control_share(text) <= _MAX_CONTROL_SHARE:
            return text
    raise rejected("document_encoding")


def _candidates(data: bytes, declared: str | None) -> list[str]:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return [encoding]
    if declared is not None and _STATEFUL.search(declared):
        return [declared, "utf-8"]
    if data.isascii() and b"\0" not in data:
        return ["utf-8"]
    found = [*_wide(data), "utf-8"]
    if declared is not None:
        found.append(declared)
    if _strict(data, "utf-8") is None:
        found.extend(_guessed(data))
    return found


def _wide(data: bytes) -> list[str]:
    """UTF-16 without a mark: most Latin text then has a NUL in every second byte."""
    sample = data[:_SAMPLE]
    half = max(len(sample) // 2, 1)
    even, odd = sample[0::2].count(0) / half, sample[1::2].count(0) / half
    if odd > 0.4 and even < 0.1:
        return ["utf-16-le"]
    if even > 0.4 and odd < 0.1:
        return ["utf-16-be"]
    return []


def _guessed(data: bytes) -> list[str]:
    """By statistics. Where cp1252 is as likely as the best, it is taken: nothing else is as common."""
    matches = from_bytes(data)
    best = matches.best()
    if best is None:
        return ["cp1252"] if _looks_western(data) else []
    tied = (match.encoding for match in matches if (match.chaos, match.coherence) == (best.chaos, best.coherence))
    return ["cp1252" if "cp1252" in tied else best.encoding]


def _looks_western(data: bytes) -> bool:
    """Mostly ASCII, and beside it nothing but letters and typographic signs of cp1252."""
    text = _strict(data, "cp1252")
    if text is None:
        return False
    others = [c for c in text if not c.isascii()]
    return len(others) <= _MAX_WESTERN_SHARE * len(text) and all(c.isalnum() or c in _WESTERN_SIGNS for c in others)


def _codec(label: str | None) -> str | None:
    """The Python codec behind a label, if it is one for text. A declared UTF-16 without a mark is not
    believed: the declaration itself was read as ASCII."""
    if not label:
        return None
    try:
        name = codecs.lookup(label.strip()).name
        "".encode(name)
    except (LookupError, ValueError):
        return None
    if name.replace("_", "-") in _REFUSED or name.startswith(("utf-16", "utf-32")):
        return None
    return _SUPERSETS.get(name, name)


def _strict(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None
