"""The last thing between a text and the reader: no image, no HTML, no address that the sources do not have.

An answer may be shown as Markdown or HTML by whoever asked, and both the passages and a model that was talked into
something are hostile. An address with a secret in it leaks when it is loaded (images) or clicked (links). Nothing
here relies on a model's good behaviour.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

_ELEMENTS = (
    "a|abbr|article|aside|audio|b|base|blockquote|body|br|button|canvas|center|code|dd|del|details|div|dl|dt|em|embed"
    "|figcaption|figure|font|footer|form|frame|frameset|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|kbd|label"
    "|li|link|main|map|marquee|math|meta|nav|noscript|object|ol|option|p|param|picture|pre|s|script|section|select"
    "|small|source|span|strike|strong|style|sub|summary|sup|svg|table|tbody|td|template|textarea|tfoot|th|thead"
    "|title|tr|track|tt|u|ul|var|video"
)
_HIDDEN = re.compile(
    r"<!--.*?(?:-->|$)|<(script|style|iframe|svg|object)\b.*?(?:</\1\s*>|$)", re.DOTALL | re.IGNORECASE
)
_TAG = re.compile(rf"</?(?:{_ELEMENTS})(?:[\s/][^<>]*)?>", re.IGNORECASE)
# Placeholders such as <API_KEY> are content: they stay, as text that no browser takes for a tag.
_BRACKETED = re.compile(r"<([A-Za-z/!?|][^<>]*)>")
_IMAGE = re.compile(r"!\[[^\]]*\](?:\([^)]*(?:\)|$)|\[[^\]]*\])?")
_LINK = re.compile(r"\[([^\]\[]*)\]\(\s*<?([^)\s>]*)>?[^)]*(?:\)|$)")
_DEFINITION = re.compile(r"^[ \t]*\[[^\]]+\]:[ \t]*\S+.*$", re.MULTILINE)
_ADDRESS = re.compile(
    r"(?:\b[a-z][a-z0-9+.-]*:)?//[^\s<>‹›\"'`|\\^{}()\[\]]+|\b(?:data|javascript|vbscript|mailto|tel):[^\s<>‹›\"'`()\[\]]+"
    r"|\bwww\.[^\s<>‹›\"'`()\[\]]+|\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    re.IGNORECASE,
)
_TRAILING = ".,;:!?*_~"
_INVISIBLE = frozenset({"Cf", "Co", "Cs"})
_JOINERS = "\u200c\u200d"
REMOVED = "(link removed)"


def addresses(text: str) -> frozenset[str]:
    """Every address in a source that may be shown again: not those of its images and its hidden parts."""
    shown = _IMAGE.sub("", _HIDDEN.sub("", text))
    return frozenset(match.group().rstrip(_TRAILING) for match in _ADDRESS.finditer(shown))


def harmless(text: str, allowed: Collection[str]) -> str:
    """`text` without images, HTML, invisible characters and addresses other than `allowed`.

    `[label](address)` becomes `label (address)`, so that a label cannot hide where it leads; an address that is not
    allowed becomes "(link removed)". Applied to a whole sentence, never to a piece of one.
    """
    visible = "".join(c for c in text if unicodedata.category(c) not in _INVISIBLE or c in _JOINERS)
    shown = _BRACKETED.sub(r"‹\1›", _TAG.sub("", _HIDDEN.sub("", visible)))
    shown = _DEFINITION.sub("", _IMAGE.sub("", shown))
    shown = _LINK.sub(lambda match: _unfolded(match.group(1), match.group(2), allowed), shown)
    shown = _ADDRESS.sub(lambda match: _checked(match.group(), allowed), shown)
    # What still looks like the beginning of a link, an image or a tag is taken apart.
    shown = re.sub(r"!+\[", "[", shown.replace("](", "] ("))
    return re.sub(r"<(?=[A-Za-z/!?|])", "‹", shown)


def _unfolded(label: str, address: str, allowed: Collection[str]) -> str:
    if address not in allowed:
        return f"{label} {REMOVED}" if address else label
    return label if address in label else f"{label} ({address})"


def _checked(address: str, allowed: Collection[str]) -> str:
    bare = address.rstrip(_TRAILING)
    return address if bare in allowed else REMOVED + address[len(bare) :]
