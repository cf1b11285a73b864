"""The pages of a sitemap, or of an index of sitemaps, packed or not (sitemaps.org), read as a stream."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from itertools import islice
from typing import Any, BinaryIO

from ingestion.sources.config import SitemapConfig
from ingestion.sources.entries import Entry, Known, Read, too_large
from ingestion.sources.fetch import Fetcher, is_address, same_site
from ingestion.sources.inflate import Inflater
from ingestion.sources.pages import Pages, page_entry
from ingestion.sources.xmlstream import local_name, read_elements
from tenants.errors import SourceFailed

_MAX_SITEMAPS = 500
_MAX_DEPTH = 2
_BATCH = 64
_ROOTS = ("urlset", "sitemapindex")
_GZIP = b"\x1f\x8b"
_ACCEPT = "application/xml, text/xml, application/gzip;q=0.9, */*;q=0.1"


class SitemapSource:
    """A connector (see `entries.Connector`)."""

    def __init__(self, config: SitemapConfig, fetcher: Fetcher, pages: Pages, max_bytes: int) -> None:
        self._config, self._fetcher, self._pages, self._max_bytes = config, fetcher, pages, max_bytes
        self._sitemaps, self._listed, self._elsewhere = 0, 0, 0
        self.cursor: dict[str, Any] = {}
        self.complete = True

    async def batches(self) -> AsyncGenerator[list[Entry], None]:
        """Yield the pages, in the order of the sitemaps."""
        async for batch in self._sitemap(self._config.url, 0):
            yield batch
        if self._elsewhere and not self._listed:
            raise SourceFailed("The sitemap lists pages of other sites only.", code="source_wrong_type")

    async def _sitemap(self, url: str, depth: int) -> AsyncIterator[list[Entry]]:
        self._sitemaps += 1
        if self._sitemaps > _MAX_SITEMAPS or depth > _MAX_DEPTH:
            raise SourceFailed(f"{url} is one sitemap too many or too deep.", code="source_too_many")
        with tempfile.TemporaryFile() as raw:
            await self._fetcher.get(url, raw, max_bytes=self._max_bytes, accept=_ACCEPT)
            content = await asyncio.to_thread(unpacked, url, raw, self._max_bytes)
            with content:
                found = read_sitemap(url, content)
                while chunk := await asyncio.to_thread(lambda: list(islice(found, _BATCH))):
                    pages = [(place, stamp) for inner, place, stamp in chunk if not inner]
                    here = [(place, stamp) for place, stamp in pages if self._is_here(place)]
                    self._listed, self._elsewhere = self._listed + len(here), self._elsewhere + len(pages) - len(here)
                    yield [page_entry(place, stamp=self._stamp(stamp)) for place, stamp in here]
                    for place in [place for inner, place, _ in chunk if inner]:
                        async for batch in self._sitemap(place, depth + 1):
                            yield batch

    def _is_here(self, place: str) -> bool:
        """Whether a page is this site's; what is no address stays, to be refused by itself and named."""
        return not is_address(place) or same_site(place, self._config.url)

    def _stamp(self, lastmod: str | None) -> str | None:
        return lastmod if self._config.trust_lastmod else None

    async def read(self, entry: Entry, known: Known | None, target: BinaryIO) -> Read | None:
        """Read a page."""
        return await self._pages.read(entry.place, known, target)

    async def aclose(self) -> None:
        """Nothing of its own is open."""


def unpacked(url: str, raw: BinaryIO, max_bytes: int) -> BinaryIO:
    """Return the content of a sitemap, which may be a gzip file; raise `SourceFailed` when it is too much."""
    raw.seek(0)
    if raw.read(2) != _GZIP:
        return raw
    raw.seek(0)
    out: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    inflater, size = Inflater(url), 0
    while block := raw.read(1 << 16):
        for piece in inflater.pieces(block):
            size += len(piece)
            if size > max_bytes:
                out.close()
                raise too_large(f"{url}, unpacked,", max_bytes)
            out.write(piece)
    inflater.end()
    out.seek(0)
    return out


def read_sitemap(url: str, content: BinaryIO) -> Iterator[tuple[bool, str, str | None]]:
    """Yield for each entry: whether it is a sitemap itself, its address, and its `lastmod`.

    Raises:
        SourceFailed: it is no sitemap (`source_wrong_type`).
    """
    for name, element in read_elements(url, content, what="sitemap", roots=_ROOTS, entries=("url", "sitemap")):
        fields = {local_name(child): (child.text or "").strip() for child in element}
        if fields.get("loc"):
            yield name == "sitemap", fields["loc"], fields.get("lastmod") or None
