"""Pages of the web, and those of the same host that they link to, down to a depth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any, BinaryIO
from urllib.parse import urldefrag, urljoin, urlsplit

from ingestion.sources.config import WebConfig
from ingestion.sources.entries import Entry, Known, Read, Validators
from ingestion.sources.fetch import same_site
from ingestion.sources.pages import Pages, page_entry

_MAX_HTML = 4 * 1024 * 1024
_MAX_LINKS = 2000
_BATCH = 16


class WebSource:
    """A connector (see `entries.Connector`): level by level, each page once."""

    def __init__(self, config: WebConfig, pages: Pages) -> None:
        self._config, self._pages = config, pages
        self._next: dict[str, None] = {}
        self._level = 0
        self.cursor: dict[str, Any] = {}
        self.complete = True

    async def batches(self) -> AsyncGenerator[list[Entry], None]:
        """Yield the pages of a level, then those they link to."""
        level = list(dict.fromkeys(urldefrag(url).url for url in self._config.urls))
        seen = set(level)
        while level:
            for at in range(0, len(level), _BATCH):
                yield [page_entry(url) for url in level[at : at + _BATCH]]
            if self._level == self._config.depth:
                return
            self._level += 1
            room = self._config.max_pages - len(seen)
            fresh = [url for url in self._next if url not in seen]
            self.complete = self.complete and len(fresh) <= room
            level, self._next = fresh[: max(0, room)], {}
            seen.update(level)

    async def read(self, entry: Entry, known: Known | None, target: BinaryIO) -> Read | None:
        """Read a page. One whose links are wanted is always fetched: an answer without a body would hide them."""
        wanted = self._level < self._config.depth
        asked = replace(known, validators=Validators()) if known is not None and wanted else known
        found = await self._pages.read(entry.place, asked, target)
        if wanted and found is not None and "html" in found.media_type:
            target.seek(0)
            text = target.read(_MAX_HTML).decode("utf-8", "replace")
            links = await asyncio.to_thread(links_of, text, entry.place)
            hosts = [url for url in links if any(same_site(url, start) for start in self._config.urls)]
            self._next |= dict.fromkeys(hosts)
        return found

    async def aclose(self) -> None:
        """Nothing of its own is open."""


class _Links(HTMLParser):
    def __init__(self, url: str) -> None:
        super().__init__(convert_charrefs=True)
        self.base_url = url
        self.found: dict[str, None] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        href = given.get("href")
        if href is None or len(href) > 2048 or len(self.found) >= _MAX_LINKS:
            return
        try:
            if tag == "base":
                self.base_url = urljoin(self.base_url, href)
            elif tag == "a" and "nofollow" not in (given.get("rel") or "").lower().split():
                self.found[urldefrag(urljoin(self.base_url, href.strip())).url] = None
        except ValueError:  # what a browser would not open either
            return


def links_of(html: str, url: str) -> list[str]:
    """Return the addresses of http and https that a page links to, in order, without those marked `nofollow`."""
    parser = _Links(url)
    parser.feed(html)
    parser.close()
    return [link for link in parser.found if urlsplit(link).scheme in ("http", "https")]
