"""What is fetched is bounded: bytes after unpacking, redirects, time; and only what changed is sent."""

from __future__ import annotations

import gzip
import io
import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from ingestion.sources.entries import Validators
from ingestion.sources.fetch import Fetcher
from ingestion.sources.inflate import BLOCK, Inflater
from ingestion.sources.robots import Robots
from ingestion.sources.settings import SourceSettings
from tenants.errors import SourceFailed

if TYPE_CHECKING:
    from tests.ingestion.sources.site import Site

SETTINGS = SourceSettings(allow_networks="127.0.0.0/8:*", connect_timeout_s=5, total_timeout_s=10)


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    opened = Fetcher(SETTINGS)
    yield opened
    await opened.aclose()


async def code_of(fetcher: Fetcher, url: str, max_bytes: int = 1_000_000) -> str:
    with pytest.raises(SourceFailed) as caught:
        await fetcher.get(url, io.BytesIO(), max_bytes=max_bytes)
    return caught.value.code


async def test_an_answer_is_sent_once_while_it_stays_the_same(site: Site, fetcher: Fetcher) -> None:
    site.put("/page", "first")
    file = io.BytesIO()
    found = await fetcher.get(f"{site.url}/page", file, max_bytes=100)
    assert (found.fresh, found.size, file.read()) == (True, 5, b"first")
    again = await fetcher.get(f"{site.url}/page", io.BytesIO(), max_bytes=100, known=found.validators)
    assert not again.fresh
    site.put("/page", "second")
    changed = await fetcher.get(f"{site.url}/page", file, max_bytes=100, known=found.validators)
    assert (changed.fresh, file.read()) == (True, b"second")


@pytest.mark.parametrize("known", [None, Validators(), Validators(etag="\xe9")])
async def test_that_nothing_has_changed_is_no_answer_to_who_did_not_ask(
    site: Site, fetcher: Fetcher, known: Validators | None
) -> None:
    site.fail("/page", 304)
    with pytest.raises(SourceFailed) as caught:
        await fetcher.get(f"{site.url}/page", io.BytesIO(), max_bytes=100, known=known)
    assert caught.value.code == "source_error"


async def test_a_packed_answer_is_unpacked(site: Site, fetcher: Fetcher) -> None:
    site.put("/page", "hello" * 100_000, packed=True)
    file = io.BytesIO()
    await fetcher.get(f"{site.url}/page", file, max_bytes=1_000_000)
    assert file.read() == b"hello" * 100_000


async def test_a_compression_bomb_is_cut_at_its_bound(site: Site, fetcher: Fetcher) -> None:
    site.put("/bomb", bytes(200_000_000), packed=True)
    assert await code_of(fetcher, f"{site.url}/bomb") == "source_too_large"
    assert fetcher.fetched_bytes <= 1_000_000 + BLOCK


async def test_an_answer_without_end_is_cut(site: Site, fetcher: Fetcher) -> None:
    site.put("/endless", b"x" * 100_000, endless=True, etag=False)
    assert await code_of(fetcher, f"{site.url}/endless") == "source_too_large"


async def test_a_run_fetches_so_much_and_no_more(site: Site) -> None:
    fetcher = Fetcher(SETTINGS.model_copy(update={"max_run_bytes": 250_000}))
    site.put("/page", b"x" * 100_000)
    await fetcher.get(f"{site.url}/page", io.BytesIO(), max_bytes=1_000_000)
    await fetcher.get(f"{site.url}/page", io.BytesIO(), max_bytes=1_000_000)
    assert await code_of(fetcher, f"{site.url}/page") == "source_too_large"
    await fetcher.aclose()


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "source_error", False),
        (401, "source_forbidden", False),
        (403, "source_forbidden", False),
        (404, "source_not_found", False),
        (410, "source_not_found", False),
        (429, "source_busy", True),
        (500, "source_error", True),
        (503, "source_error", True),
    ],
)
async def test_an_error_is_named(site: Site, fetcher: Fetcher, status: int, code: str, retryable: bool) -> None:
    site.fail("/page", status)
    with pytest.raises(SourceFailed) as caught:
        await fetcher.get(f"{site.url}/page", io.BytesIO(), max_bytes=100)
    assert (caught.value.code, caught.value.retryable) == (code, retryable)


async def test_redirects_are_followed_five_times(site: Site, fetcher: Fetcher) -> None:
    for n in range(6):
        site.redirect(f"/{n}", f"/{n + 1}")
    site.put("/6", "here")
    found = await fetcher.get(f"{site.url}/1", io.BytesIO(), max_bytes=100)
    assert found.url == f"{site.url}/6"
    assert await code_of(fetcher, f"{site.url}/0") == "source_redirect_loop"


async def test_a_loop_ends_where_it_closes(site: Site, fetcher: Fetcher) -> None:
    site.redirect("/a", "/b")
    site.redirect("/b", "/a")
    assert await code_of(fetcher, f"{site.url}/a") == "source_redirect_loop"
    assert site.paths() == ["/a", "/b"]


async def test_a_server_that_does_not_answer_is_given_up(site: Site) -> None:
    fetcher = Fetcher(SETTINGS.model_copy(update={"connect_timeout_s": 0.2}))
    site.put("/slow", "late", wait=(wait := threading.Event()))
    assert await code_of(fetcher, f"{site.url}/slow") == "source_timeout"
    wait.set()
    await fetcher.aclose()


async def test_an_answer_that_drips_is_given_up(site: Site) -> None:
    fetcher = Fetcher(SETTINGS.model_copy(update={"total_timeout_s": 0.3}))
    site.put("/endless", b"x", endless=True, etag=False)
    assert await code_of(fetcher, f"{site.url}/endless", max_bytes=10**12) == "source_timeout"
    await fetcher.aclose()


async def test_nobody_there_is_unreachable(fetcher: Fetcher) -> None:
    assert await code_of(fetcher, "http://127.0.0.1:9/") == "source_unreachable"


async def test_an_encoding_that_was_not_asked_for_is_refused(site: Site, fetcher: Fetcher) -> None:
    site.put("/page", "x", headers={"Content-Encoding": "br"})
    assert await code_of(fetcher, f"{site.url}/page") == "source_wrong_type"


async def test_a_packed_answer_that_breaks_off_is_damaged(site: Site, fetcher: Fetcher) -> None:
    site.put("/page", gzip.compress(b"x" * 1000)[:-9], headers={"Content-Encoding": "gzip"})
    assert await code_of(fetcher, f"{site.url}/page") == "source_damaged"


async def test_robots_are_obeyed_and_read_once(site: Site, fetcher: Fetcher) -> None:
    site.put("/robots.txt", "User-agent: *\nDisallow: /private/*.html$\n\nUser-agent: Tessera\nDisallow: /secret\n")
    robots = Robots(fetcher, "Tessera/1.0", obeyed=True)
    await robots.require(f"{site.url}/private/a.html")
    with pytest.raises(SourceFailed) as caught:
        await robots.require(f"{site.url}/secret/b")
    assert caught.value.code == "source_robots"
    assert site.paths() == ["/robots.txt"]
    await Robots(fetcher, "Tessera/1.0", obeyed=False).require(f"{site.url}/secret/b")


async def test_of_very_long_rules_the_first_are_obeyed(site: Site, fetcher: Fetcher) -> None:
    rules = "User-agent: *\nDisallow: /secret\n"
    filling = "# filling\n" * ((500 * 1024 - len(rules)) // 10)
    cut = "Disallow: /" + "x" * 20
    site.put("/robots.txt", rules + filling + cut + "\nDisallow: /late\n")
    robots = Robots(fetcher, "Tessera/1.0", obeyed=True)
    with pytest.raises(SourceFailed) as caught:
        await robots.require(f"{site.url}/secret/b")
    assert caught.value.code == "source_robots"
    await robots.require(f"{site.url}/late")
    # What is left of the rule that was cut off would keep this one back.
    await robots.require(f"{site.url}/xx")


async def test_a_site_without_rules_lets_everything_be_fetched(site: Site, fetcher: Fetcher) -> None:
    await Robots(fetcher, "Tessera/1.0", obeyed=True).require(f"{site.url}/page")


async def test_a_site_whose_rules_cannot_be_read_is_left_alone(site: Site, fetcher: Fetcher) -> None:
    site.fail("/robots.txt", 503)
    with pytest.raises(SourceFailed):
        await Robots(fetcher, "Tessera/1.0", obeyed=True).require(f"{site.url}/page")


def test_what_is_unpacked_comes_a_little_at_a_time() -> None:
    packed = gzip.compress(bytes(10_000_000))
    inflater = Inflater("x")
    sizes = [len(piece) for piece in inflater.pieces(packed)]
    inflater.end()
    assert (sum(sizes), max(sizes)) == (10_000_000, BLOCK)


def test_validators_become_the_headers_of_a_condition() -> None:
    assert Validators('"a"', None).headers == {"If-None-Match": '"a"'}
