"""A crawl in which a page that leads to others is not read: what was not found has not vanished."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from ingestion.sources.config import WebConfig
from ingestion.sources.entries import Known, Validators
from ingestion.sources.fetch import Fetcher
from ingestion.sources.pages import Pages
from ingestion.sources.robots import Robots
from ingestion.sources.settings import SourceSettings
from ingestion.sources.web import WebSource
from tenants.errors import SourceFailed

if TYPE_CHECKING:
    from tests.ingestion.sources.conftest import Sources
    from tests.ingestion.sources.site import Site

KNOWN = Known(Validators(), None, b"hash")


def page(title: str, *links: str) -> str:
    anchors = "".join(f'<a href="{link}">on</a>' for link in links)
    return f"<html><title>{title}</title><p>This is {title}.</p>{anchors}</html>"


@pytest.fixture
async def pages() -> AsyncIterator[Pages]:
    """The pages of loopback, at most 5 MB each."""
    fetcher = Fetcher(SourceSettings(allow_networks="127.0.0.1:*"))
    yield Pages(fetcher, Robots(fetcher, "Tessera", obeyed=True), 5_000_000)
    await fetcher.aclose()


async def crawled(site: Site, pages: Pages, known: Known | None = KNOWN) -> tuple[list[str], bool]:
    """Return what a crawl of /a and /b with depth 1 lists, and whether it says that this is all."""
    source = WebSource(WebConfig(urls=[f"{site.url}/a", f"{site.url}/b"], depth=1), pages)
    listed = []
    async for entries in source.batches():
        for entry in entries:
            listed.append(entry.place.removeprefix(site.url))
            try:
                await source.read(entry, known, io.BytesIO())
            except SourceFailed:
                continue
    return listed, source.complete


async def test_a_crawl_that_read_every_page_is_complete(site: Site, pages: Pages) -> None:
    site.put("/a", page("A", "/p1", "/p2"))
    site.put("/b", page("B"))
    site.fail("/p1", 500)
    assert await crawled(site, pages) == (["/a", "/b", "/p1", "/p2"], True), "no link was wanted of what failed"


@pytest.mark.parametrize("status", [500, 403, 429])
async def test_a_page_whose_links_were_not_read_hides_what_it_led_to(site: Site, pages: Pages, status: int) -> None:
    site.fail("/a", status)
    site.put("/b", page("B"))
    assert await crawled(site, pages) == (["/a", "/b"], False)


async def test_what_robots_forbids_from_now_on_hides_what_it_led_to(site: Site, pages: Pages) -> None:
    site.put("/robots.txt", "User-agent: *\nDisallow: /a")
    site.put("/b", page("B"))
    assert await crawled(site, pages) == (["/a", "/b"], False)
    assert await crawled(site, pages, known=None) == (["/a", "/b"], True), "what was never read led to nothing"


async def test_a_page_that_is_no_more_leads_nowhere(site: Site, pages: Pages) -> None:
    site.fail("/a", 410)
    site.put("/b", page("B"))
    assert await crawled(site, pages) == (["/a", "/b"], True)


async def test_a_page_of_too_many_links_or_bytes_hides_the_rest(site: Site, pages: Pages) -> None:
    site.put("/a", page("A", *(f"/{n}" for n in range(2100))))
    site.put("/b", page("B"))
    source = WebSource(WebConfig(urls=[f"{site.url}/a"], depth=1), pages)
    [first] = await anext(source.batches())
    await source.read(first, None, io.BytesIO())
    assert not source.complete
    site.put("/a", page("A") + " " * 4_300_000)
    assert await crawled(site, pages) == (["/a", "/b"], False)


async def test_an_answer_without_a_body_that_nobody_asked_for_hides_links(site: Site, pages: Pages) -> None:
    site.put("/a", "", status=304, etag=False)
    site.put("/b", page("B"))
    _, complete = await crawled(site, pages)
    assert not complete


async def test_a_hub_that_fails_deletes_nothing(site: Site, sources: Sources) -> None:
    site.put("/a", page("A", "/p1", "/p2", "/p3"))
    site.put("/b", page("B", "/q1", "/q2", "/q3"))
    for name in ("p1", "p2", "p3", "q1", "q2", "q3"):
        site.put(f"/{name}", page(name))
    source = await sources.add("web", {"urls": [f"{site.url}/a", f"{site.url}/b"], "depth": 1})
    assert (await sources.run(source))["added"] == 8
    site.fail("/a", 500)
    for _ in range(3):
        run = await sources.run(source)
        assert (run["state"], run["failed"], run["vanished"]) == ("done", 1, 0)
    assert len(await sources.documents()) == 8
    site.put("/a", page("A", "/p1"))
    vanished = [(await sources.run(source))["vanished"] for _ in range(2)]
    assert vanished == [0, 2], "what is linked no more is gone the second time"


async def test_a_run_that_is_repeated_follows_the_links_of_what_it_read(site: Site, sources: Sources) -> None:
    children = [f"/p{n}" for n in range(24)]
    site.put("/a", page("A", *children))
    for child in children:
        site.fail(child, 503)
    source = await sources.add("web", {"url": f"{site.url}/a", "depth": 1})
    client = sources.access.client
    job_id = (await client.post(f"/v1/sources/{source['id']}/run")).json()["job"]["id"]
    while (await client.get(f"/v1/jobs/{job_id}")).json()["state"] != "retrying":
        await asyncio.sleep(0.05)
    for child in children:
        site.put(child, page(child))
    await sources.access.job(job_id)
    await sources.settled()
    [run] = await sources.runs(source)
    assert (run["state"], run["added"], run["unchanged"], run["failed"]) == ("done", 25, 0, 0)
