"""One odd value in what others send fails its entry alone, with a code that says why."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from ingestion.settings import IngestSettings
from ingestion.sources.config import Config, FeedConfig, FolderConfig, SitemapConfig, WebConfig
from ingestion.sources.connect import SourceTools, connected
from ingestion.sources.models import SourceEntry
from ingestion.sources.reading import Outcome, read_all
from ingestion.sources.repository import new_source
from ingestion.sources.settings import SourceSettings
from ingestion.sources.vault import Vault

if TYPE_CHECKING:
    from tests.ingestion.sources.site import Site

TENANT = UUID(int=1)
Kept = dict[str, SourceEntry]


async def outcomes(config: Config, known: Kept | None = None, **settings: Any) -> dict[str, Outcome]:
    """Read every entry of a source and return what became of it, by the last part of its place."""
    allowed = SourceSettings(allow_networks="127.0.0.0/8:*", connect_timeout_s=5, total_timeout_s=10, **settings)
    source = new_source(TENANT, kind="x", name="x", config={}, on_vanish="keep", misses=1)
    found: list[Outcome] = []
    opened = connected(SourceTools(allowed, Vault(""), ""), IngestSettings(), TENANT, config, {})
    async with opened as connector, aclosing(connector.batches()) as batches:
        async for entries in batches:
            found += await read_all(connector, source, entries, known or {}, at_once=2)
    for one in found:
        if one.incoming is not None:
            one.incoming.content.close()
    return {one.entry.place.rsplit("/", 1)[-1]: one for one in found}


def feed(site: Site, *links: str) -> Config:
    items = "".join(f"<item><guid>{link}</guid><title>T</title><link>{link}</link></item>" for link in links)
    site.put("/feed", f"<rss><channel>{items}</channel></rss>")
    return FeedConfig(url=f"{site.url}/feed", content="page")


def sitemap(site: Site, *links: str) -> Config:
    site.put("/map", f"<urlset>{''.join(f'<url><loc>{link}</loc></url>' for link in links)}</urlset>")
    return SitemapConfig(url=f"{site.url}/map")


def web(site: Site, *links: str) -> Config:
    return WebConfig(urls=list(links))


@pytest.mark.parametrize("robots", [True, False])
@pytest.mark.parametrize(
    ("listed", "odd"),
    [
        (feed, "http://[foo]"),
        (feed, "http://[foo"),
        (feed, "mailto:a@b.example"),
        (sitemap, "http://[foo"),
        (sitemap, "http://[::1::2]"),
        (web, "{site}/leads"),
        (feed, "{site}/leads"),
        (sitemap, "{site}/leads"),
    ],
)
async def test_an_address_that_is_none_fails_alone(
    site: Site, listed: Callable[..., Config], odd: str, robots: bool
) -> None:
    site.put("/good", "<p>Good.</p>")
    site.redirect("/leads", "http://[x")
    odd = odd.replace("{site}", site.url)
    found = await outcomes(listed(site, odd, f"{site.url}/good"), robots=robots)
    assert found["good"].change == "added"
    error = found[odd.rsplit("/", 1)[-1]].error
    assert error is not None
    assert (error.code, error.retryable) == ("source_address_refused", False)


async def test_a_feed_that_says_all_itself_needs_no_address(site: Site) -> None:
    config = FeedConfig(url=feed(site, "http://[foo]/x").url)  # type: ignore[union-attr]
    found = await outcomes(config)
    assert found["x"].change == "added"


async def test_a_long_address_of_an_entry_is_fetched_whole(site: Site) -> None:
    site.put("/good?" + "x" * 1500, "<p>Good.</p>")
    found = await outcomes(feed(site, f"{site.url}/good?{'x' * 1500}"))
    assert [one.change for one in found.values()] == ["added"]


async def test_a_validator_that_cannot_be_sent_back_is_not(site: Site) -> None:
    """Whether it was kept before or comes now, the page is read."""
    site.put("/good", "<p>Good.</p>", etag=False, headers={"ETag": '"\xe9"'})
    place = f"{site.url}/good"
    kept = SourceEntry(key=place, etag='"\xe9"', last_modified="Sáb", stamp=None, content_sha256=b"", document_id=None)
    found = await outcomes(web(site, place), {place: kept})
    assert found["good"].incoming is not None
    assert not {"If-None-Match", "If-Modified-Since"} & set(site.asked[-1][1])


async def test_an_empty_file_whose_name_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / b"\xff.txt".decode("utf-8", "surrogateescape")).write_bytes(b"")
    found = await outcomes(FolderConfig(path=str(tmp_path)), folders=str(tmp_path))
    [error] = [one.error for one in found.values()]
    assert error is not None
    assert error.code == "source_empty"
    error.detail.encode()
