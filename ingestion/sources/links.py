"""The links of a page, found by one pass over its text: a hostile page costs no more than its length.

Tags, attributes and comments are told apart as browsers do (WHATWG HTML, section 13.2.5). No pattern here looks at a
character twice: each either takes what it saw or is the last.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from urllib.parse import urldefrag, urljoin, urlsplit

MAX_LINKS = 2000
"""Of one page. What is missing in a run in which a page had more, or was cut off, has not vanished."""
_MAX_CHARS = 2048
_OPENING = re.compile(r"<(?:(!--)|([!?]|/(?![a-zA-Z]))|(/?)([a-zA-Z][^ \t\n\r\f/>]*+))")
_ATTRIBUTE = re.compile(
    r"[ \t\n\r\f/]*+(?:(>)|([^ \t\n\r\f/>][^ \t\n\r\f/>=]*+)"
    r"(?:[ \t\n\r\f]*+=[ \t\n\r\f]*+(?:\"([^\"]*+)(?:\"|\Z)|'([^']*+)(?:'|\Z)|([^ \t\n\r\f>]*+)))?)"
)
_COMMENT_END = re.compile(r"--!?>")
_TEXT = ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes")
_TEXT_END = {tag: re.compile(rf"</{tag}(?=[ \t\n\r\f/>])", re.IGNORECASE) for tag in _TEXT}
"""Elements whose content is text, whatever it looks like, up to their end."""


def links_of(page: str, url: str) -> list[str]:
    """Return the addresses of http and https that a page links to, in order, without those marked `nofollow`.

    At most 2,000; `url` is the page's own. Nothing in a page raises an error.
    """
    found: dict[str, None] = {}
    based = False
    for tag, attributes in _tags(page):
        address = _joined(url, attributes.get("href"))
        if address is None:
            continue
        if tag == "base":
            url, based = (url if based else address), True
        elif "nofollow" not in attributes.get("rel", "").lower().split() and address.startswith(("http:", "https:")):
            found[urldefrag(address).url] = None
            if len(found) == MAX_LINKS:
                break
    return list(found)


def _joined(base: str, href: str | None) -> str | None:
    """Return the whole address, None for one that a browser would not open either."""
    if href is None or len(href) > _MAX_CHARS:
        return None
    try:
        joined = urljoin(base, html.unescape(href).replace("\0", "\ufffd").strip())
        urlsplit(joined)
    except ValueError:
        return None
    return joined


def _tags(page: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield name and attributes of each whole tag that opens an `a` or a `base`."""
    at = 0
    while opening := _OPENING.search(page, at):
        comment, declaration, closing, tag = opening.groups()
        if comment:
            # `<!-->` and `<!--->` are comments, too.
            end = _COMMENT_END.search(page, opening.end() - 2)
            at = end.end() if end else len(page)
        elif declaration:
            at = page.find(">", opening.end()) + 1 or len(page)
        else:
            name = tag.lower()
            attributes, at = _attributes(page, opening.end())
            if attributes is None or (not closing and name == "plaintext"):
                return
            if not closing and name in _TEXT_END:
                end = _TEXT_END[name].search(page, at)
                at = end.start() if end else len(page)
            elif not closing and name in ("a", "base"):
                yield name, attributes


def _attributes(page: str, at: int) -> tuple[dict[str, str] | None, int]:
    """Return the attributes of the tag whose name ends here, and where it ends; None when it never does."""
    given: dict[str, str] = {}
    while found := _ATTRIBUTE.match(page, at):
        at = found.end()
        end, name, *values = found.groups()
        if end:
            return given, at
        if (key := name.lower()) in ("href", "rel"):
            given.setdefault(key, next((value for value in values if value is not None), ""))
    return None, at
