"""Pages of the web, and those of the same host that they link to, down to a depth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, BinaryIO
from urllib.parse import urldefrag

from ingestion.sources.config import WebConfig
from ingestion.sources.entries import Entry, Known, Read, Validators
from ingestion.sources.fetch import same_site
from ingestion.sources.links import MAX_LINKS, links_of
from ingestion.sources.pages import Pages, page_entry
from tenants.errors import SourceFailed

_MAX_HTML = 4 * 1024 * 1024
_BATCH = 16


class WebSource:
    """A connector (see `entries.Connector`): level by level, each page once."""

    def __init__(self, config: WebConfig, pages: Pages) -> None:
        self._config, self._pages = config, pages
        self._next: dict[str, None] = {}
        self.cursor: dict[str, Any] = {}
        self.complete = True

    async def batches(self) -> AsyncGenerator[list[Entry], None]:
        """Yield the pages of a level, then those they link to."""
        level = list(dict.fromkeys(urldefrag(url).url for url in self._config.urls))
        seen, depth = set(level), 0
        while level:
            leads_on = depth < self._config.depth
            for at in range(0, len(level), _BATCH):
                yield [replace(page_entry(url), leads_on=leads_on) for url in level[at : at + _BATCH]]
            if not leads_on:
                return
            depth += 1
            room = self._config.max_pages - len(seen)
            fresh = [url for url in self._next if url not in seen]
            self.complete = self.complete and len(fresh) <= room
            level, self._next = fresh[: max(0, room)], {}
            seen.update(level)

    async def read(self, entry: Entry, known: Known | None, target: BinaryIO) -> Read | None:
        """Read a page. One whose links are wanted is always fetched: an answer without a body would hide them."""
        if not entry.leads_on:
            return await self._pages.read(entry.place, known, target)
        asked = replace(known, validators=Validators()) if known is not None else None
        try:
            found = await self._pages.read(entry.place, asked, target)
        except SourceFailed as error:
            self.complete = self.complete and not _hides_links(error, known)
            raise
        if found is None:
            self.complete = False
        elif "html" in found.media_type:
            await self._follow(entry.place, target)
        return found

    async def _follow(self, url: str, target: BinaryIO) -> None:
        target.seek(0)
        page = target.read(_MAX_HTML + 1)
        links = await asyncio.to_thread(links_of, page[:_MAX_HTML].decode("utf-8", "replace"), url)
        self.complete = self.complete and len(page) <= _MAX_HTML and len(links) < MAX_LINKS
        hosts = [link for link in links if any(same_site(link, start) for start in self._config.urls)]
        self._next |= dict.fromkeys(hosts)

    async def aclose(self) -> None:
        """Nothing of its own is open."""


def _hides_links(error: SourceFailed, known: Known | None) -> bool:
    """Whether pages may be there though they were not found, since one that leads to them was not read.

    One that was never read before, such as what robots.txt forbids, led to nothing; one that is no more leads nowhere.
    """
    return error.retryable or (known is not None and error.code != "source_not_found")
