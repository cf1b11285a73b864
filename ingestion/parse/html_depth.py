"""How deep a page nests, told before it is parsed: a conforming parser takes time with the square of it."""

from __future__ import annotations

import re

from ingestion.parse.rejections import rejected

_MAX_DEPTH = 5000
_TAG = re.compile(r"<(/?)([a-z][a-z0-9]*)", re.I)
_FLAT = (
    "area base br col embed hr img input link meta param source track wbr "
    "html head body p li dt dd tr td th thead tbody tfoot colgroup caption option optgroup rb rt rp rtc"
)
_NEVER_DEEP = frozenset(_FLAT.split())
"""Elements without content, and those that the next of their kind closes."""


def refuse_deep(text: str) -> None:
    """Raises DocumentRejected(nested_too_deeply) for a page with thousands of elements open at once."""
    if text.count("<") < _MAX_DEPTH:
        return
    depth = 0
    for match in _TAG.finditer(text):
        if match[2].lower() in _NEVER_DEEP:
            continue
        depth = max(depth - 1, 0) if match[1] else depth + 1
        if depth > _MAX_DEPTH:
            raise rejected("nested_too_deeply")
