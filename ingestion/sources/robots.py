"""Whether a site's `robots.txt` lets a page be fetched (RFC 9309), read once a run for each site."""

from __future__ import annotations

import asyncio
import tempfile
from urllib.parse import urlsplit

from protego import Protego

from ingestion.sources.fetch import Fetcher
from ingestion.sources.guard import refused
from tenants.errors import SourceFailed

_MAX_BYTES = 500 * 1024
"""What the RFC asks a reader to take at least; what is beyond is not read."""


class Robots:
    """The rules of every site that a run has met."""

    def __init__(self, fetcher: Fetcher, user_agent: str, *, obeyed: bool) -> None:
        self._fetcher, self._agent, self._obeyed = fetcher, user_agent, obeyed
        self._known: dict[str, Protego | None] = {}
        self._turn = asyncio.Lock()

    async def require(self, url: str) -> None:
        """Raise `SourceFailed` (`source_robots`) when the site asks not to fetch this page."""
        if not self._obeyed:
            return
        rules = await self._rules(url)
        if rules is not None and not rules.can_fetch(url, self._agent):
            raise SourceFailed(f"{url} is left out: the site's robots.txt asks for it.", code="source_robots")

    async def _rules(self, url: str) -> Protego | None:
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise refused(url, "it is not an address") from error
        site = f"{parts.scheme}://{parts.netloc}"
        async with self._turn:
            if site not in self._known:
                self._known[site] = await self._read(f"{site}/robots.txt")
        return self._known[site]

    async def _read(self, url: str) -> Protego | None:
        with tempfile.TemporaryFile() as file:
            try:
                await self._fetcher.get(url, file, max_bytes=_MAX_BYTES)
            except SourceFailed as error:
                if error.retryable:  # the RFC: a site whose rules cannot be read now is not to be crawled now
                    raise
                if error.code != "source_too_large":
                    return None
                whole = file.read(_MAX_BYTES).rpartition(b"\n")[0]  # half a rule may mean something else
            else:
                whole = file.read()
            return Protego.parse(whole.decode("utf-8", "replace"))
