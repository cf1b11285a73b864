"""What looks like an error deletes nothing: failed runs with their cause, doubtful listings, entries that fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.ingestion.sources.conftest import Sources
    from tests.ingestion.sources.site import Site

ENTITIES = (
    "<?xml version='1.0'?><!DOCTYPE r [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><rss><channel>&a;</channel></rss>"
)


async def test_a_feed_that_breaks_in_every_way_loses_nothing(site: Site, sources: Sources) -> None:
    site.feed("/feed", {"a": ("Auks", "Auks dive deep."), "b": ("Bats", "Bats fly at dusk.")})
    source = await sources.add("feed", {"url": f"{site.url}/feed"}, on_vanish="delete", misses=1)
    assert (await sources.run(source))["added"] == 2
    good = site.pages["/feed"]
    for code, break_it in (
        ("source_not_found", lambda: site.fail("/feed", 404)),
        ("source_forbidden", lambda: site.fail("/feed", 403)),
        ("source_wrong_type", lambda: site.put("/feed", "<!doctype html><html><body><p>Sign in<br></body></html>")),
        ("source_wrong_type", lambda: site.put("/feed", good.body[:-40])),
        ("source_wrong_type", lambda: site.put("/feed", "")),
        ("source_wrong_type", lambda: site.put("/feed", ENTITIES)),
        ("source_redirect_loop", lambda: site.redirect("/feed", "/feed")),
        ("source_address_refused", lambda: site.redirect("/feed", "http://169.254.169.254/latest/")),
        ("source_too_large", lambda: site.put("/feed", bytes(60_000_000), packed=True)),
        ("source_too_large", lambda: site.put("/feed", b"<rss>" + b" " * 1_000_000, endless=True, etag=False)),
    ):
        break_it()
        run = await sources.run(source)
        assert (run["state"], (run["error"] or {}).get("code")) == ("failed", code), run
        assert run["vanished"] == 0
    assert set(await sources.documents()) == {"Auks", "Bats"}
    site.pages["/feed"] = good
    assert (await sources.run(source))["unchanged"] == 2


async def test_a_folder_that_is_suddenly_empty_is_believed_the_second_time(
    folder: Callable[[], Path], sources: Sources
) -> None:
    where = folder()
    for n in range(3):
        (where / f"{n}.txt").write_text(f"Number {n} of the folder.")
    source = await sources.add("folder", {"path": str(where)})
    assert (source["misses"], (await sources.run(source))["added"]) == (1, 3)
    for path in where.iterdir():
        path.unlink()
    first = await sources.run(source)
    assert (first["state"], first["vanished"]) == ("done", 0), "a mount that is away looks like this"
    assert len(await sources.documents()) == 3
    second = await sources.run(source)
    assert (second["vanished"], await sources.documents()) == (3, {})
    where.rmdir()
    assert (await sources.run(source))["error"]["code"] == "source_not_found"


async def test_an_entry_that_fails_keeps_its_document(site: Site, sources: Sources) -> None:
    for name in "abc":
        site.put(f"/{name}", f"<html><title>Page {name}</title><p>This is page {name}.</p></html>")
    pages = [f"{site.url}/{name}" for name in "abc"]
    source = await sources.add("web", {"urls": pages}, misses=1)
    await sources.run(source)
    site.fail("/a", 500)
    for _ in range(3):
        run = await sources.run(source)
        assert (run["state"], run["failed"], run["unchanged"], run["vanished"]) == ("done", 1, 2, 0)
    assert "Page a" in await sources.documents()
    site.fail("/a", 404)
    assert (await sources.run(source))["vanished"] == 0
    site.put("/a", "<html><title>Page a</title><p>This is page a again.</p></html>")
    back = await sources.run(source)
    assert (back["changed"], back["vanished"]) == (1, 0), "who comes back was not gone"
    site.fail("/a", 410)
    assert (await sources.run(source))["vanished"] == 0
    assert (await sources.run(source))["vanished"] == 1
    assert set(await sources.documents()) == {"Page b", "Page c"}


async def test_a_site_that_is_gone_as_a_whole_fails(site: Site, sources: Sources) -> None:
    site.put("/a", "<html><title>Page a</title><p>This is page a.</p></html>")
    source = await sources.add("web", {"url": f"{site.url}/a"})
    await sources.run(source)
    site.fail("/a", 404)
    for _ in range(3):
        run = await sources.run(source)
        assert (run["state"], run["error"]["code"], run["vanished"]) == ("failed", "source_not_found", 0)
    assert "Page a" in await sources.documents()


async def test_a_page_that_is_listed_thrice_is_gone_once(site: Site, sources: Sources) -> None:
    """Its doubles are no pages that the site sent."""
    site.put("/a", "<html><title>Page a</title><p>This is page a.</p></html>")
    site.sitemap("/sitemap.xml", ["/a", "/a", "/a"])
    source = await sources.add("sitemap", {"url": f"{site.url}/sitemap.xml"}, misses=1)
    assert (await sources.run(source))["added"] == 1
    site.fail("/a", 404)
    for _ in range(3):
        run = await sources.run(source)
        assert (run["state"], run["error"]["code"], run["vanished"]) == ("failed", "source_not_found", 0)
    assert "Page a" in await sources.documents()


async def test_an_entry_that_fails_between_was_not_missing_in_a_row(site: Site, sources: Sources) -> None:
    def start(*links: str) -> None:
        site.put("/", f"<title>Start</title><p>Start.</p>{''.join(f'<a href={link}>x</a>' for link in links)}")

    for name in "abc":
        site.put(f"/{name}", f"<html><title>Page {name}</title><p>This is page {name}.</p></html>")
    start("/a", "/b", "/c")
    source = await sources.add("web", {"url": f"{site.url}/", "depth": 1}, misses=2)
    assert (await sources.run(source))["added"] == 4
    start("/b", "/c")
    assert (await sources.run(source))["vanished"] == 0
    start("/a", "/b", "/c")
    site.fail("/a", 500)
    assert (await sources.run(source))["failed"] == 1
    start("/b", "/c")
    assert (await sources.run(source))["vanished"] == 0, "missing once since it was listed"
    assert (await sources.run(source))["vanished"] == 1
    assert "Page a" not in await sources.documents()


async def test_what_vanished_may_be_kept(folder: Callable[[], Path], sources: Sources) -> None:
    where = folder()
    for n in range(3):
        (where / f"{n}.txt").write_text(f"Number {n} of the folder.")
    source = await sources.add("folder", {"path": str(where)}, on_vanish="keep")
    await sources.run(source)
    (where / "1.txt").unlink()
    assert (await sources.run(source))["vanished"] == 1
    assert len(await sources.documents()) == 3
    (where / "1.txt").write_text("Number 1 of the folder.")
    again = await sources.run(source)
    assert (again["added"], len(await sources.documents())) == (1, 3), "it is the same document as before"


async def test_what_cannot_be_ingested_fails_alone(folder: Callable[[], Path], sources: Sources) -> None:
    where = folder()
    (where / "good.txt").write_text("Good text.")
    (where / "bad.bin").write_bytes(b"\x7fELF" + bytes(100))
    (where / "empty.txt").write_text("")
    source = await sources.add("folder", {"path": str(where), "include": ["*"]})
    run = await sources.run(source)
    assert (run["state"], run["added"], run["failed"]) == ("done", 1, 2)
    assert {error["key"]: error["code"] for error in run["errors"]} == {
        "bad.bin": "unsupported_type",
        "empty.txt": "source_empty",
    }
    (where / "good.txt").unlink()
    await sources.run(source)
    gone = await sources.run(source)
    assert (gone["state"], gone["vanished"]) == ("done", 1), "what is left was sent: it is no error of the source"


@pytest.mark.parametrize("kind", ["feed", "sitemap"])
async def test_a_page_where_a_listing_was_expected_is_named(site: Site, sources: Sources, kind: str) -> None:
    site.put("/x", "<html><body>Hello</body></html>")
    source = await sources.add(kind, {"url": f"{site.url}/x"})
    run = await sources.run(source)
    assert run["error"]["code"] == "source_wrong_type"
    assert "HTML" in run["error"]["detail"]


async def test_a_preview_changes_nothing(site: Site, sources: Sources) -> None:
    site.feed("/feed", {"a": ("Auks", "Auks dive."), "b": ("Bats", "Bats fly.")})
    source = await sources.add("feed", {"url": f"{site.url}/feed"}, on_vanish="delete", misses=1)
    await sources.run(source)
    site.feed("/feed", {"b": ("Bats", "Bats hang."), "c": ("Cats", "Cats purr.")})
    answer = await sources.access.client.post(f"/v1/sources/{source['id']}/preview")
    assert answer.status_code == 202
    seen = (await sources.access.job(answer.json()["job"]["id"]))["result"]
    assert (seen["added"], seen["changed"], seen["vanished"], seen["complete"]) == (1, 1, 1, True)
    assert {entry["key"]: entry["change"] for entry in seen["entries"]} == {
        "a": "vanished",
        "b": "changed",
        "c": "added",
    }
    assert set(await sources.documents()) == {"Auks", "Bats"}
    assert len(await sources.runs(source)) == 1
    site.fail("/feed", 404)
    answer = await sources.access.client.post(f"/v1/sources/{source['id']}/preview")
    failed = await sources.access.job(answer.json()["job"]["id"])
    assert (failed["state"], failed["error"]["code"]) == ("failed", "source_not_found")
