"""The entries of a feed: RSS 0.9 to 2.0 and Atom 1.0 (RFC 4287), read as a stream."""

from __future__ import annotations

import asyncio
import hashlib
import html
import tempfile
from collections.abc import AsyncGenerator, Iterator
from itertools import islice
from typing import Any, BinaryIO
from urllib.parse import urljoin
from xml.etree.ElementTree import Element, tostring

from ingestion.sources.config import FeedConfig
from ingestion.sources.entries import Entry, Known, Read, Unchanged, Validators, bounded_key, bounded_text
from ingestion.sources.fetch import Fetcher
from ingestion.sources.pages import Pages
from ingestion.sources.xmlstream import local_name, read_elements
from tenants.errors import SourceFailed

_ACCEPT = "application/rss+xml, application/atom+xml, application/xml;q=0.9, text/xml;q=0.9, */*;q=0.1"
_BATCH = 32
_MAX_TITLE = 500
_MEDIA = "{http://search.yahoo.com/mrss/}"
"""Describes pictures, under names that mean the entry elsewhere."""
_ATOM = "{http://www.w3.org/2005/Atom}"
_ROOTS = ("rss", "feed", "rdf")
_ENTRIES = ("item", "entry")
_CONTENT = ("encoded", "content", "description", "summary")
"""Names of what an entry says, the fullest first."""
_DATES = ("updated", "pubdate", "published", "date", "modified")


class FeedSource:
    """A connector (see `entries.Connector`)."""

    def __init__(
        self, config: FeedConfig, fetcher: Fetcher, pages: Pages, *, max_bytes: int, cursor: dict[str, Any]
    ) -> None:
        self._config, self._fetcher, self._pages, self._max_bytes = config, fetcher, pages, max_bytes
        self.cursor = cursor
        self.complete = True

    async def batches(self) -> AsyncGenerator[list[Entry], None]:
        """Yield the entries; a feed that has not changed since `cursor` says so, where no page hangs on it."""
        pages = self._config.content == "page"
        known = None if pages else Validators(self.cursor.get("etag"), self.cursor.get("last_modified"))
        with tempfile.TemporaryFile() as file:
            found = await self._fetcher.get(
                self._config.url, file, max_bytes=self._max_bytes, known=known, accept=_ACCEPT
            )
            if not found.fresh:
                raise Unchanged
            entries = read_feed(found.url, file)
            while batch := await asyncio.to_thread(lambda: list(islice(entries, _BATCH))):
                yield batch
        self.cursor = {"etag": found.validators.etag, "last_modified": found.validators.last_modified}

    async def read(self, entry: Entry, known: Known | None, target: BinaryIO) -> Read | None:
        """Write what the feed says, or read the page that it links to."""
        if self._config.content == "page":
            if not entry.metadata.get("url"):
                raise SourceFailed("The entry links to no page.", code="source_not_found")
            return await self._pages.read(entry.place, known, target, elsewhere=True)
        target.write(entry.content or b"")
        return Read("entry.html", "text/html; charset=utf-8")

    async def aclose(self) -> None:
        """Nothing of its own is open."""


def read_feed(url: str, content: BinaryIO) -> Iterator[Entry]:
    """Yield the entries of a feed.

    Raises:
        SourceFailed: it is no feed (`source_wrong_type`), such as a page of HTML.
    """
    for _, element in read_elements(url, content, what="feed", roots=_ROOTS, entries=_ENTRIES, deepest=2):
        yield _entry(url, element)


def _entry(url: str, element: Element) -> Entry:
    fields: dict[str, Element] = {}
    for child in element:
        if not str(child.tag).startswith(_MEDIA):
            fields.setdefault(local_name(child), child)
    link = _link(url, element)
    title = " ".join(_text(fields.get("title")).split())[:_MAX_TITLE]
    body = next((text for name in _CONTENT if (text := _body(fields.get(name)).strip())), "")
    identity = (_text(fields.get("guid")) or _text(fields.get("id"))).strip() or link
    key = identity or hashlib.sha256(f"{title}\0{body}".encode("utf-8", "replace")).hexdigest()
    dated = next((text for name in _DATES if (text := _text(fields.get(name)).strip())), "")
    metadata = {name: bounded_text(value) for name, value in (("url", link), ("published", dated)) if value}
    return Entry(
        key=bounded_key(key), place=link or url, title=title or None, metadata=metadata, content=_page(title, body)
    )


def _link(url: str, element: Element) -> str:
    """Return the address of an entry's page: `<link>text</link>` in RSS, `<link rel href>` in Atom."""
    for child in element:
        if local_name(child) == "link" and child.get("rel", "alternate") == "alternate":
            target = (child.get("href") or child.text or "").strip()
            if target:
                return _joined(url, target)
    return ""


def _joined(url: str, target: str) -> str:
    try:
        return urljoin(url, target)
    except ValueError:
        return target  # where the page is to be fetched, it is refused for this entry alone


def _text(element: Element | None) -> str:
    """Return what an element says as HTML or text; XHTML inside Atom is written out again."""
    if element is None:
        return ""
    if len(element):
        return "".join([element.text or "", *(tostring(child, encoding="unicode") for child in element)])
    return element.text or ""


def _body(element: Element | None) -> str:
    """Return the same as HTML: RSS means HTML, Atom means plain text unless it says otherwise."""
    text = _text(element)
    plain = element is not None and str(element.tag).startswith(_ATOM) and element.get("type", "text") == "text"
    return html.escape(text) if plain else text


def _page(title: str, body: str) -> bytes:
    shown = html.escape(html.unescape(title))
    head = f"<head><meta charset='utf-8'><title>{shown}</title></head>"
    page = f"<!doctype html><html>{head}<body><h1>{shown}</h1>{body}</body></html>"
    return page.encode("utf-8", "replace")
