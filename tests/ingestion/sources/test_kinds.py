"""Every kind of source on the whole stack, with real servers and folders: what it brings, and what it leaves out."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dulwich.repo import Repo

from tests.ingestion.sources.git_server import git_on
from tests.ingestion.sources.site import site_on

if TYPE_CHECKING:
    from tests.ingestion.sources.conftest import Sources
    from tests.ingestion.sources.site import Site


def page(title: str, text: str, *links: str) -> str:
    anchors = "".join(f'<a href="{link}">on</a>' for link in links)
    return f"<html><head><title>{title}</title></head><body><h1>{title}</h1><p>{text}</p>{anchors}</body></html>"


async def test_pages_and_what_they_link_to_down_to_a_depth(site: Site, sources: Sources) -> None:
    outside = "http://localhost.example/"
    site.put("/", page("Start", "The start page.", "/a", "/b#part", outside, "/cut", "mailto:x@example.com"))
    site.put("/a", page("Page A", "Alder trees stand by the river.", "/deep", "/"))
    site.put("/b", page("Page B", "Birches stand on the hill."))
    site.put("/deep", page("Deep", "Too deep."))
    site.put("/robots.txt", "User-agent: *\nDisallow: /cut")
    source = await sources.add("web", {"url": f"{site.url}/", "depth": 1})
    first = await sources.run(source)
    assert (first["added"], first["failed"]) == (3, 1), first
    assert [(item["key"], item["code"]) for item in first["errors"]] == [(f"{site.url}/cut", "source_robots")]
    assert set(await sources.documents()) == {"Start", "Page A", "Page B"}
    assert (await sources.documents())["Page A"]["metadata"] == {"url": f"{site.url}/a"}

    site.put("/b", page("Page B", "Birches were felled on the hill."))
    site.put("/", page("Start", "The start page.", "/b"))
    second = await sources.run(source)
    assert (second["added"], second["changed"], second["vanished"]) == (0, 2, 0)
    third = await sources.run(source)
    assert (third["unchanged"], third["vanished"]) == (2, 1), "a page that is linked no more is gone the second time"
    assert set(await sources.documents()) == {"Start", "Page B"}


async def test_an_index_of_sitemaps_one_of_them_packed(site: Site, sources: Sources) -> None:
    for n in range(5):
        site.put(f"/p{n}", page(f"Page {n}", f"Number {n} of the sitemap."))
    site.sitemap("/one.xml", ["/p0", "/p1", "/p2"])
    site.sitemap("/two.xml", ["/p3", "/p4"])
    packed = gzip.compress(site.pages["/two.xml"].body)
    site.put("/two.xml.gz", packed, media_type="application/gzip")
    inner = "".join(f"<sitemap><loc>{site.url}/{name}</loc></sitemap>" for name in ("one.xml", "two.xml.gz"))
    site.put("/sitemap.xml", f"<sitemapindex>{inner}</sitemapindex>", media_type="application/xml")
    source = await sources.add("sitemap", {"url": f"{site.url}/sitemap.xml"})
    first = await sources.run(source)
    assert (first["state"], first["added"]) == ("done", 5), first

    site.put("/p1", page("Page 1", "Rewritten."))
    site.asked.clear()
    second = await sources.run(source)
    assert (second["changed"], second["unchanged"]) == (1, 4)
    conditional = [path for path, headers in site.asked if "If-None-Match" in headers]
    assert set(conditional) == {f"/p{n}" for n in range(5)}, "pages are sent again only when they have changed"

    site.fail("/p2", 404)
    for _ in range(2):
        gone = await sources.run(source)
    assert (gone["state"], gone["vanished"], gone["failed"]) == ("done", 1, 1)
    assert "Page 2" not in await sources.documents()


async def test_a_page_that_leads_to_a_place_to_sign_in_keeps_its_document(site: Site, sources: Sources) -> None:
    site.put("/a", page("Page A", "Alder trees stand by the river."))
    site.put("/b", page("Page B", "Birches stand on the hill."))
    source = await sources.add("web", {"urls": [f"{site.url}/a", f"{site.url}/b"]})
    await sources.run(source)
    with site_on("127.0.0.2") as other:
        other.put("/login", page("Sign in", "Who are you?"))
        site.redirect("/a", f"{other.url}/login")
        run = await sources.run(source)
    assert [(error["key"], error["code"]) for error in run["errors"]] == [(f"{site.url}/a", "source_moved")]
    assert set(await sources.documents()) == {"Page A", "Page B"}


async def test_a_sitemap_of_other_sites_is_said(site: Site, sources: Sources) -> None:
    body = "<urlset><url><loc>https://elsewhere.example/a</loc></url></urlset>"
    site.put("/sitemap.xml", body, media_type="application/xml")
    source = await sources.add("sitemap", {"url": f"{site.url}/sitemap.xml"})
    run = await sources.run(source)
    assert "other sites" in run["error"]["detail"]


async def test_a_feed_whose_pages_are_fetched(site: Site, sources: Sources) -> None:
    site.feed("/feed", {"one": ("One", "Short."), "two": ("Two", "Short.")})
    site.put("/one", page("One", "The whole story of one."))
    source = await sources.add("feed", {"url": f"{site.url}/feed", "content": "page"})
    assert source["on_vanish"] == "keep"
    first = await sources.run(source)
    assert (first["added"], first["failed"], first["errors"][0]["code"]) == (1, 1, "source_not_found")
    assert "whole story" in await sources.found("the story of one")


async def test_a_folder_of_a_git_repository(tmp_path: Path, sources: Sources) -> None:
    with git_on(tmp_path / "repo") as remote:
        remote.commit({"docs/a.md": "# Alpha\n\nAlpha is first.", "docs/deep/b.txt": "Beta is second.", "code.py": "1"})
        source = await sources.add("git", {"url": remote.url, "folder": "/docs/"})
        first = await sources.run(source)
        assert (first["state"], first["added"], first["failed"]) == ("done", 2, 0), first
        assert "Alpha is first" in await sources.found("alpha")

        remote.requests.clear()
        same = await sources.run(source)
        assert (same["unchanged"], same["added"]) == (2, 0)
        assert not any(path.endswith("git-upload-pack") for path in remote.requests[1:]), "an old commit is not fetched"

        remote.commit(
            {"docs/a.md": "# Alpha\n\nAlpha is last.", "docs/deep/b.txt": None, "docs/c.md": "# Gamma\n\nThree."}
        )
        changed = await sources.run(source)
        assert (changed["added"], changed["changed"], changed["vanished"]) == (1, 1, 1)
        assert "Alpha is last" in await sources.found("alpha")
        assert "Beta" not in await sources.found("beta second")


async def test_a_branch_that_is_set_back_is_read_again_after_a_run_with_a_failure(
    tmp_path: Path, sources: Sources
) -> None:
    with git_on(tmp_path / "repo") as remote, Repo(str(remote.path)) as repo:
        remote.commit({"a.md": "# Alpha\n\nAlpha is first."})
        first = repo.head()
        source = await sources.add("git", {"url": remote.url})
        await sources.run(source)
        remote.commit({"b.md": "# Beta\n\nBeta is a mistake.", "empty.md": ""})
        second = await sources.run(source)
        assert (second["added"], second["failed"]) == (1, 1)
        repo.refs[b"refs/heads/master"] = first
        back = await sources.run(source)
        assert (back["unchanged"], back["vanished"]) == (1, 1)
        assert set(await sources.documents()) == {"Alpha"}


async def test_faults_of_a_repository_are_named(tmp_path: Path, site: Site, sources: Sources) -> None:
    with git_on(tmp_path / "repo", token=base64.b64encode(b"git:s3cret").decode()) as remote:
        remote.commit({"a.md": "# A\n\nText."})
        private = await sources.add("git", {"url": remote.url, "credentials": {"token": "s3cret"}})
        opened = await sources.run(private)
        assert opened["added"] == 1, opened
        closed = await sources.add("git", {"url": remote.url})
        assert (await sources.run(closed))["error"]["code"] == "source_forbidden"
        for config in ({"branch": "nowhere"}, {"folder": "nowhere"}):
            wrong = await sources.add("git", {"url": remote.url, **config, "credentials": {"token": "s3cret"}})
            assert (await sources.run(wrong))["error"]["code"] == "source_not_found", config
    site.put("/repo/info/refs?service=git-upload-pack", "<html>hello</html>")
    other = await sources.add("git", {"url": f"{site.url}/repo"})
    assert (await sources.run(other))["error"]["code"] == "source_wrong_type"


async def test_a_folder_of_the_machine(folder: Callable[[], Path], tmp_path: Path, sources: Sources) -> None:
    where = folder()
    (where / "a.md").write_text("# Ants\n\nAnts build hills.")
    (where / "inner").mkdir()
    (where / "inner" / "b.txt").write_text("Bees build combs.")
    (where / ".hidden.md").write_text("Hidden.")
    (where / "picture.zzz").write_text("No document.")
    (tmp_path / "secret.txt").write_text("Not yours.")
    (where / "link.txt").symlink_to(tmp_path / "secret.txt")
    (where / "linked").symlink_to(tmp_path)
    source = await sources.add("folder", {"path": str(where)})
    first = await sources.run(source)
    assert (first["state"], first["added"], first["failed"]) == ("done", 2, 0), first
    (where / "a.md").write_text("# Ants\n\nAnts build bridges.")
    (where / "inner" / "b.txt").unlink()
    second = await sources.run(source)
    assert (second["changed"], second["vanished"], second["added"]) == (1, 1, 0)
    assert "bridges" in await sources.found("what do ants build")
    assert "Not yours" not in await sources.found("secret not yours")


async def test_a_folder_that_the_operator_does_not_name_is_refused(tmp_path: Path, sources: Sources) -> None:
    for kind, config in (("folder", {"path": str(tmp_path)}), ("objects", {"url": f"file://{tmp_path}"})):
        source = await sources.add(kind, config)
        run = await sources.run(source)
        assert (run["state"], run["error"]["code"]) == ("failed", "source_address_refused")


async def test_a_file_url_is_a_folder(folder: Callable[[], Path], sources: Sources) -> None:
    where = folder()
    (where / "a.md").write_text("# Cranes\n\nCranes fly south.")
    source = await sources.add("objects", {"url": f"file://{where}"})
    assert (await sources.run(source))["added"] == 1
    (where / "out").symlink_to("/etc")
    outside = await sources.add("folder", {"path": f"{where}/out"})
    assert (await sources.run(outside))["error"]["code"] == "source_address_refused"
