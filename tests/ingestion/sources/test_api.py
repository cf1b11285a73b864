"""Sources over HTTP: what is accepted, what is refused and where, what is shown and what never is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import select, text, update

from ingestion.sources import repository
from ingestion.sources.due import queue_due
from ingestion.sources.models import Source, SourceClock
from tenants.db import Database
from tenants.settings import DatabaseSettings

if TYPE_CHECKING:
    import httpx

    from service.local.state import StackState
    from tests.conftest import TenantAccess
    from tests.ingestion.sources.conftest import Sources
    from tests.ingestion.sources.site import Site

FEED = {"kind": "feed", "name": "news", "config": {"url": "https://example.com/feed"}}


@pytest.fixture
async def database(stack: StackState) -> AsyncIterator[Database]:
    """The stack's own database, as its workers see it."""
    opened = Database(stack.env["TESSERA_DATABASE_WORKER_URL"], DatabaseSettings())
    yield opened
    await opened.aclose()


async def test_a_source_is_registered_shown_changed_and_removed(tenant: TenantAccess) -> None:
    body = FEED | {"schedule": {"cron": "0  6 * * mon-fri", "timezone": "Europe/Berlin"}, "on_vanish": "delete"}
    made = await tenant.client.post("/v1/sources", json=body)
    assert made.status_code == 201
    source = made.json()
    assert made.headers["location"] == f"/v1/sources/{source['id']}"
    assert source["schedule"] == {"cron": "0 6 * * MON-FRI", "timezone": "Europe/Berlin"}
    assert (source["state"], source["last_run"], source["misses"], source["on_vanish"]) == ("active", None, 2, "delete")
    following = datetime.fromisoformat(source["next_run_at"])
    assert following > datetime.now(UTC)
    assert following.hour in (4, 5), "06:00 in Berlin"
    assert (await tenant.client.get("/v1/sources")).json() == {"items": [source], "next": None}
    assert (await tenant.client.get(f"/v1/sources/{source['id']}")).json() == source

    path = f"/v1/sources/{source['id']}"
    paused = (await tenant.client.post(f"{path}/pause")).json()
    assert (paused["state"], paused["next_run_at"]) == ("paused", None)
    resumed = (await tenant.client.post(f"{path}/resume")).json()
    assert (resumed["state"], resumed["next_run_at"]) == ("active", source["next_run_at"])
    changed = await tenant.client.patch(path, json={"name": "papers", "misses": 5, "schedule": None})
    assert changed.status_code == 200, changed.text
    shown = changed.json()
    assert (shown["name"], shown["misses"], shown["schedule"], shown["next_run_at"]) == ("papers", 5, None, None)
    assert shown["config"] == source["config"]
    removed = await tenant.client.delete(path)
    assert removed.json() == {"id": source["id"], "deleted_documents": 0}
    assert (await tenant.client.get(path)).status_code == 404


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"schedule": {"cron": "61 * * * *"}}, "body.schedule.cron"),
        ({"schedule": {"cron": "* * * * * *"}}, "body.schedule.cron"),
        ({"schedule": {"cron": "0 0 30 2 *"}}, "body.schedule.cron"),
        ({"schedule": {"cron": "0 6 * * *", "timezone": "Mars/Olympus"}}, "body.schedule.timezone"),
        ({"schedule": {"cron": "0 6 * * *", "zone": "UTC"}}, "body.schedule.zone"),
        ({"kind": "blog"}, "body.kind"),
        ({"name": "  "}, "body.name"),
        ({"name": "upload"}, "body.name"),
        ({"on_vanish": "burn"}, "body.on_vanish"),
        ({"misses": 0}, "body.misses"),
        ({"extra": 1}, "body.extra"),
        ({"config": {}}, "body.config.url"),
        ({"config": {"url": "https://example.com", "depth": 1}}, "body.config.depth"),
        ({"config": {"url": "ftp://example.com/"}}, "body.config.url"),
        ({"config": {"url": "http://169.254.169.254/"}}, "body.config.url"),
        ({"config": {"url": "http://user:pass@example.com/"}}, "body.config.url"),
        ({"kind": "web", "config": {"urls": ["https://example.com", "http://[::1]/"]}}, "body.config.urls.1"),
        ({"kind": "web", "config": {"url": "https://example.com", "depth": 9}}, "body.config.depth"),
        ({"kind": "git", "config": {"url": "ssh://git@example.com/a"}}, "body.config.url"),
        ({"kind": "git", "config": {"url": "file:///srv/repo"}}, "body.config.url"),
        ({"kind": "git", "config": {"url": "https://example.com/a", "folder": "../.."}}, "body.config.folder"),
        (
            {"kind": "git", "config": {"url": "https://example.com/a", "branch": "--exec=x"}},
            "body.config.branch",
        ),
        ({"kind": "objects", "config": {"url": "https://bucket/x"}}, "body.config"),
        ({"kind": "objects", "config": {"url": "s3://b@evil/x"}}, "body.config"),
        ({"kind": "objects", "config": {"url": "s3://bucket", "endpoint": "http://10.0.0.1"}}, "body.config.endpoint"),
        ({"kind": "objects", "config": {"url": "s3://bucket", "region": "x.evil.example"}}, "body.config.region"),
        ({"kind": "folder", "config": {"path": "relative"}}, "body.config.path"),
        ({"kind": "folder", "config": {"path": "/srv", "include": ["a\x00b"]}}, "body.config.include.0"),
        ({"kind": "web", "config": {"urls": ["https://example.com/a\x00b"]}}, "body.config.urls.0"),
        ({"kind": "objects", "config": {"url": "s3://bucket/a\x00b"}}, "body.config.url"),
    ],
)
async def test_a_fault_is_refused_and_named(tenant: TenantAccess, change: dict[str, Any], pointer: str) -> None:
    answer = await tenant.client.post("/v1/sources", json=FEED | change)
    assert answer.status_code == 422, answer.text
    assert pointer in [error["pointer"] for error in answer.json()["errors"]], answer.text


async def test_names_are_unique_and_repeats_are_known(tenant: TenantAccess) -> None:
    headers = {"Idempotency-Key": "once"}
    first = await tenant.client.post("/v1/sources", json=FEED, headers=headers)
    again = await tenant.client.post("/v1/sources", json=FEED, headers=headers)
    assert (first.status_code, again.json()) == (201, first.json())
    taken = await tenant.client.post("/v1/sources", json=FEED)
    assert (taken.status_code, taken.json()["code"]) == (409, "source_name_taken")
    other = (await tenant.client.post("/v1/sources", json=FEED | {"name": "other"})).json()
    renamed = await tenant.client.patch(f"/v1/sources/{other['id']}", json={"name": "news"})
    assert (renamed.status_code, renamed.json()["code"]) == (409, "source_name_taken")


async def test_of_two_that_take_a_name_at_once_one_gets_it(tenant: TenantAccess, database: Database) -> None:
    made = [await tenant.client.post("/v1/sources", json=FEED | {"name": name}) for name in ("one", "two")]
    one, two = [UUID(answer.json()["id"]) for answer in made]
    tenant_id = UUID(tenant.id)
    async with database.tenant(tenant_id) as session, session.begin():
        await repository.lock_names(session, tenant_id)
        (await repository.get(session, tenant_id, one)).name = "news"
        await session.flush()
        renamed = asyncio.create_task(tenant.client.patch(f"/v1/sources/{two}", json={"name": "news"}))
        while not await session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
            await asyncio.sleep(0.05)
    assert (await renamed).json()["code"] == "source_name_taken"


async def test_credentials_are_never_shown_and_sealed_where_they_lie(
    tenant: TenantAccess, database: Database, stack: StackState
) -> None:
    config = {"url": "s3://some-bucket/docs", "credentials": {"access_key_id": "AKIAX", "secret_access_key": "hush77"}}
    made = await tenant.client.post("/v1/sources", json={"kind": "objects", "name": "bucket", "config": config})
    assert made.status_code == 201, made.text
    path = f"/v1/sources/{made.json()['id']}"
    kept = {"url": "s3://some-bucket/other", "region": "eu-west-1"}
    patched = await tenant.client.patch(path, json={"config": kept})
    for answer in (made, patched, await tenant.client.get(path), await tenant.client.get("/v1/sources")):
        assert "hush77" not in answer.text
        assert "AKIAX" not in answer.text
    assert patched.json()["config"] == kept | {"include": [], "credentials": "set"}, "they stay unless they are given"
    async with database.tenant(UUID(tenant.id)) as session:
        [row] = await session.scalars(select(Source))
        assert row.sealed is not None
        assert b"hush77" not in row.sealed
        assert "hush77" not in str(row.config)
    cleared = await tenant.client.patch(path, json={"config": kept | {"credentials": None}})
    assert "credentials" not in cleared.json()["config"]
    half = config | {"credentials": {"access_key_id": "AKIAX"}}
    refused = await tenant.client.patch(path, json={"config": half})
    assert refused.status_code == 422
    assert "AKIAX" not in refused.text


async def test_credentials_do_not_follow_a_source_to_another_place(tenant: TenantAccess) -> None:
    """Whoever may change a source could read them there otherwise."""
    config = {"url": "https://git.example.com/team/notes.git", "credentials": {"token": "hush77"}}
    made = await tenant.client.post("/v1/sources", json={"kind": "git", "name": "notes", "config": config})
    assert made.status_code == 201, made.text
    path = f"/v1/sources/{made.json()['id']}"
    same = await tenant.client.patch(path, json={"config": {"url": "https://git.example.com/team/other.git"}})
    assert same.json()["config"]["credentials"] == "set"
    elsewhere = {"url": "https://attacker.example/team/notes.git"}
    refused = await tenant.client.patch(path, json={"config": elsewhere})
    assert refused.status_code == 422
    assert [error["pointer"] for error in refused.json()["errors"]] == ["body.config.credentials"]
    assert (await tenant.client.get(path)).json()["config"]["url"] == "https://git.example.com/team/other.git"
    given = await tenant.client.patch(path, json={"config": elsewhere | {"credentials": {"token": "other"}}})
    assert (given.status_code, given.json()["config"]["credentials"]) == (200, "set")
    without = await tenant.client.patch(path, json={"config": config | {"credentials": None}})
    assert without.status_code == 200
    assert "credentials" not in without.json()["config"]


async def test_a_source_that_is_due_runs_once_however_long_nobody_looked(
    site: Site, sources: Sources, database: Database
) -> None:
    site.feed("/feed", {"a": ("Auks", "Auks dive.")})
    source = await sources.add("feed", {"url": f"{site.url}/feed"}, schedule={"cron": "* * * * *"})
    await sources.access.client.post(f"/v1/sources/{source['id']}/pause")
    await sources.access.client.post(f"/v1/sources/{source['id']}/resume")
    tenant_id = UUID(sources.access.id)
    async with database.tenant(tenant_id) as session, session.begin():
        long_ago = datetime.now(UTC) - timedelta(days=3)
        await session.execute(update(SourceClock).values(next_run_at=long_ago))
    for _ in range(200):
        shown = (await sources.access.client.get(f"/v1/sources/{source['id']}")).json()
        if shown["last_run"] and shown["last_run"]["state"] == "done":
            break
        await asyncio.sleep(0.1)
    assert shown["last_run"]["cause"] == "schedule"
    assert datetime.fromisoformat(shown["next_run_at"]) > datetime.now(UTC) - timedelta(seconds=30)
    assert shown["last_success_at"] is not None
    await asyncio.sleep(3)
    by_schedule = [run for run in await sources.runs(source) if run["cause"] == "schedule"]
    assert len(by_schedule) <= 2, "three days of minutes are caught up once"


async def test_a_source_that_was_paused_between_the_look_and_the_lock_does_not_run(
    tenant: TenantAccess, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = FEED | {"schedule": {"cron": "0 0 1 1 *"}}
    made = [(await tenant.client.post("/v1/sources", json=body | {"name": name})).json()["id"] for name in "ab"]
    await tenant.client.post(f"/v1/sources/{made[0]}/pause")

    async def seen(*_: object) -> list[tuple[UUID, UUID]]:
        return [(UUID(tenant.id), UUID(one)) for one in made]

    monkeypatch.setattr(repository, "due_sources", seen)
    assert await queue_due(database) == 0
    for one in made:
        assert (await tenant.client.get(f"/v1/sources/{one}/runs")).json()["items"] == []


async def test_a_run_that_is_asked_for_twice_is_one(site: Site, sources: Sources) -> None:
    site.put("/page", "<html><title>P</title><p>Plovers.</p></html>", wait=(gate := threading.Event()))
    source = await sources.add("web", {"url": f"{site.url}/page"})
    path = f"/v1/sources/{source['id']}/run"
    first = (await sources.access.client.post(path)).json()["job"]
    second = (await sources.access.client.post(path)).json()["job"]
    assert first["id"] == second["id"]
    previews = [(await sources.access.client.post(path.replace("/run", "/preview"))).json()["job"] for _ in range(2)]
    assert previews[0]["id"] == previews[1]["id"]
    assert first["kind"] == "sync"
    gate.set()
    assert (await sources.access.job(first["id"]))["state"] == "done"
    third = (await sources.access.client.post(path)).json()["job"]
    assert third["id"] != first["id"]
    await sources.settled()
    assert len(await sources.runs(source)) == 2


async def test_a_run_that_is_cancelled_ends_there(site: Site, sources: Sources) -> None:
    site.put("/page", "<html><title>P</title><p>Plovers.</p></html>", wait=(gate := threading.Event()))
    source = await sources.add("web", {"url": f"{site.url}/page"})
    client = sources.access.client
    job = (await client.post(f"/v1/sources/{source['id']}/run")).json()["job"]
    while "/page" not in site.paths():
        await asyncio.sleep(0.05)
    assert (await client.post(f"/v1/jobs/{job['id']}/cancel")).status_code == 200
    [run] = await sources.runs(source)
    assert (run["state"], run["added"]) == ("cancelled", 0)
    gate.set()
    again = await sources.run(source)
    assert (again["state"], again["added"]) == ("done", 1)
    assert [run["state"] for run in await sources.runs(source)] == ["done", "cancelled"]


async def test_an_upload_does_not_wait_for_runs_that_take_long(site: Site, sources: Sources) -> None:
    gate, added = threading.Event(), []
    for n in range(6):
        site.put(f"/{n}", f"<html><title>P{n}</title><p>Plovers {n}.</p></html>", wait=gate)
        added.append(await sources.add("web", {"url": f"{site.url}/{n}"}))
    client = sources.access.client
    for source in added:
        await client.post(f"/v1/sources/{source['id']}/run")
    while not {"/0", "/1"} <= set(site.paths()):
        await asyncio.sleep(0.05)
    uploaded = await sources.access.upload("Quails hide in the grass.", "quails.txt")
    assert uploaded["job"]["state"] == "done"
    assert not {"/2", "/3", "/4", "/5"} & set(site.paths()), "two of a tenant at a time, the others wait"
    gate.set()
    await sources.settled()
    for source in added:
        assert [run["state"] for run in await sources.runs(source)] == ["done"]


async def test_a_tenant_has_so_many_sources_and_no_more(tenant: TenantAccess) -> None:
    for n in range(50):
        made = await tenant.client.post("/v1/sources", json=FEED | {"name": f"feed {n}"})
        assert made.status_code == 201
    refused = await tenant.client.post("/v1/sources", json=FEED)
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_sources")
    first = (await tenant.client.get("/v1/sources", params={"limit": 30})).json()
    rest = (await tenant.client.get("/v1/sources", params={"limit": 30, "cursor": first["next"]})).json()
    assert (len(first["items"]), len(rest["items"]), rest["next"]) == (30, 20, None)


async def test_the_documents_of_a_removed_source_stay_or_go(site: Site, sources: Sources) -> None:
    site.feed("/feed", {"a": ("Auks", "Auks dive."), "b": ("Bats", "Bats fly.")})
    config = {"url": f"{site.url}/feed"}
    kept, gone = await sources.add("feed", config, name="kept"), await sources.add("feed", config, name="gone")
    await sources.run(kept)
    await sources.run(gone)
    client = sources.access.client
    assert len((await client.get("/v1/documents")).json()["items"]) == 4
    assert (await client.delete(f"/v1/sources/{kept['id']}")).json()["deleted_documents"] == 0
    answer = await client.delete(f"/v1/sources/{gone['id']}", params={"documents": "delete"})
    assert answer.json()["deleted_documents"] == 2
    left = (await client.get("/v1/documents")).json()["items"]
    assert {document["source"] for document in left} == {"kept"}
    assert (await client.get("/v1/sources")).json()["items"] == []
    await sources.settled()
    jobs = (await client.get("/v1/jobs", params={"limit": 100})).json()["items"]
    assert [job["state"] for job in jobs if job["kind"] == "delete"] == ["done", "done"]


async def test_a_renamed_source_takes_its_documents_along(site: Site, sources: Sources) -> None:
    site.feed("/feed", {"a": ("Auks", "Auks dive.")})
    source = await sources.add("feed", {"url": f"{site.url}/feed"})
    await sources.run(source)
    await sources.access.client.patch(f"/v1/sources/{source['id']}", json={"name": "seabirds"})
    hits = await sources.access.search("auks", filter={"source": {"eq": "seabirds"}})
    assert len(hits) == 1


async def test_an_erased_tenant_leaves_no_source(admin: httpx.AsyncClient, site: Site, sources: Sources) -> None:
    site.feed("/feed", {"a": ("Auks", "Auks dive.")})
    await sources.run(await sources.add("feed", {"url": f"{site.url}/feed"}))
    erased = await admin.delete(f"/v1/admin/tenants/{sources.access.id}")
    for _ in range(200):
        job = (await admin.get(f"/v1/jobs/{erased.json()['job']['id']}")).json()
        if job["state"] == "done":
            break
        await asyncio.sleep(0.1)
    rows = job["result"]["rows"]
    assert {name: rows[name] for name in rows if name.startswith("source")} == {
        "sources": 1,
        "source_clocks": 1,
        "source_entries": 1,
        "source_runs": 1,
    }


async def test_the_metrics_say_how_fresh_sources_are(admin: httpx.AsyncClient, site: Site, sources: Sources) -> None:
    site.feed("/feed", {"a": ("Auks", "Auks dive.")})
    source = await sources.add("feed", {"url": f"{site.url}/feed"})
    await sources.run(source)
    text = (await admin.get("/metrics")).text
    label = f'tessera_source_last_success_timestamp_seconds{{source="{source["id"]}",tenant="{sources.access.slug}"}}'
    assert label in text
    assert 'tessera_source_runs_total{state="done"}' in text
    assert source["name"] not in text
