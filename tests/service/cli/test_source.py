"""The commands of sources, each as a process against the real service and a real site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.ingestion.sources.site import site_on


async def test_a_source_from_its_registration_to_its_end(
    run: Callable[..., Any], read: Callable[..., Any], tenant: Any
) -> None:
    key = tenant.key
    with site_on() as site:
        site.feed("/feed", {"a": ("Apples", "Apples are picked in autumn."), "b": ("Beans", "Beans climb.")})
        assert "no sources yet" in run("source", "list", key=key).stdout
        made = run("source", "add", "feed", "garden", f"{site.url}/feed", "--cron", "0 6 29 2 *", key=key)
        assert "Registered garden" in made.stdout
        assert "read next at 2028-02-29" in made.stderr
        again = run("source", "add", "feed", "garden", f"{site.url}/feed", key=key, ok=False)
        assert "source_name_taken" in again.stderr

        seen = run("source", "preview", "garden", key=key).stdout
        assert "2 added, 0 changed" in seen
        assert "Apples" in seen
        assert read("documents", "list", key=key) == []

        assert (
            "done: 2 added, 0 changed, 0 unchanged, 0 vanished, 0 failed"
            in run("source", "run", "garden", key=key).stdout
        )
        shown = run("source", "show", "garden", key=key).stdout
        assert "done: 2 added" in shown
        assert "garden is paused." in run("source", "pause", "garden", key=key).stdout
        assert "paused" in run("source", "list", key=key).stdout
        assert "read next at 2028-02-29" in run("source", "resume", "garden", key=key).stdout

        site.fail("/feed", 404)
        ended = run("source", "run", "garden", key=key, ok=False)
        assert "source_not_found" in ended.stderr
        history = read("source", "history", "garden", key=key)
        assert [one["state"] for one in history] == ["failed", "done"]
        assert "source_not_found" in run("source", "history", "garden", key=key).stdout

        assert "2 documents were deleted" in run("source", "remove", "garden", "--documents", "delete", key=key).stdout
        assert "not_found" in run("source", "show", "garden", key=key, ok=False).stderr


def test_a_fault_is_named_in_one_sentence(run: Callable[..., Any], tenant: Any) -> None:
    ended = run("source", "add", "feed", "x", "https://example.com/", "--cron", "61 * * * *", key=tenant.key, ok=False)
    assert "body.schedule.cron" in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    ended = run("source", "add", "feed", "x", "http://169.254.169.254/", key=tenant.key, ok=False)
    assert "source_address_refused" in ended.stderr
    assert "KIND" in run("source", "add", "blog", "x", "https://example.com/", key=tenant.key, ok=False).stderr
