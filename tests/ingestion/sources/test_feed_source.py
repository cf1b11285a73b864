"""A feed from its registration to the end of an entry, on the whole stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.ingestion.sources.site import Site

if TYPE_CHECKING:
    from tests.ingestion.sources.conftest import Sources

OTTER = ("Otters", "Otters were counted at the weir in April.")
NEW_OTTER = ("Otters", "Otters were counted at the mill in September.")
HERON = ("Herons", "A heron colony moved to the island.")


async def test_a_feed_is_followed_until_its_entry_is_gone(site: Site, sources: Sources) -> None:
    site.feed("/feed", {"otter": OTTER, "heron": HERON})
    source = await sources.add("feed", {"url": f"{site.url}/feed"}, on_vanish="delete")
    first = await sources.run(source)
    assert (first["state"], first["added"], first["failed"]) == ("done", 2, 0), first
    assert "weir in April" in await sources.found("where were otters counted")
    assert (await sources.documents())["Otters"]["source"] == source["name"]

    same = await sources.run(source)
    assert (same["added"], same["changed"], same["unchanged"], same["vanished"]) == (0, 0, 2, 0)
    assert site.asked[-1][1]["If-None-Match"], "the second time it asks whether anything has changed"

    site.feed("/feed", {"otter": NEW_OTTER, "heron": HERON})
    changed = await sources.run(source)
    assert (changed["changed"], changed["unchanged"]) == (1, 1)
    text = await sources.found("where were otters counted")
    assert "mill in September" in text
    assert "weir in April" not in text
    assert (await sources.documents())["Otters"]["version"] == 2

    site.fail("/feed", 500)
    failed = await sources.run(source)
    assert (failed["state"], failed["error"]["code"]) == ("failed", "source_error")
    assert "mill in September" in await sources.found("where were otters counted")

    site.feed("/feed", {"heron": HERON})
    missed = await sources.run(source)
    assert (missed["state"], missed["vanished"]) == ("done", 0)
    assert "mill in September" in await sources.found("where were otters counted"), "missing once is not gone"
    gone = await sources.run(source)
    assert (gone["state"], gone["vanished"]) == ("done", 1), "the feed as it was before confirms it"
    assert "mill in September" not in await sources.found("where were otters counted")
    assert set(await sources.documents()) == {"Herons"}
    assert [run["state"] for run in await sources.runs(source)] == ["done", "done", "failed", "done", "done", "done"]
