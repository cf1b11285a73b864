"""Pages of the web as entries: fetched when they have changed, where `robots.txt` has nothing against it."""

from __future__ import annotations

from typing import BinaryIO

from ingestion.sources.entries import Entry, Known, Read, bounded_key, bounded_text
from ingestion.sources.fetch import Fetcher, filename_of, same_site
from ingestion.sources.robots import Robots
from tenants.errors import SourceFailed


class Pages:
    """Reads pages by their addresses; at most `max_bytes` each."""

    def __init__(self, fetcher: Fetcher, robots: Robots, max_bytes: int) -> None:
        self._fetcher, self._robots, self._max_bytes = fetcher, robots, max_bytes

    async def read(self, url: str, known: Known | None, target: BinaryIO, *, elsewhere: bool = False) -> Read | None:
        """Write a page to `target`; return None when it is the known one.

        Raises:
            SourceFailed: among others, `source_moved`: it leads to another site, which is more often a place to sign
                in than the page. Links of feeds do so by habit (`elsewhere`).
        """
        await self._robots.require(url)
        validators = known.validators if known is not None else None
        found = await self._fetcher.get(url, target, max_bytes=self._max_bytes, known=validators)
        if not found.fresh:
            return None
        if found.url != url:
            if not elsewhere and not same_site(found.url, url):
                raise SourceFailed(f"{url} leads to another site: {found.url[:200]}.", code="source_moved")
            await self._robots.require(found.url)
        return Read(filename_of(found.url, "page.html"), found.media_type, found.validators)


def page_entry(url: str, *, stamp: str | None = None, title: str | None = None) -> Entry:
    """Return the entry of a page; what follows `#` is the reader's own affair."""
    bare = url.partition("#")[0]
    return Entry(key=bounded_key(bare), place=bare, stamp=stamp, title=title, metadata={"url": bounded_text(bare)})
