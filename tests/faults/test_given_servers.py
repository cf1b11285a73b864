"""The whole service on a Postgres 15 behind PgBouncer in transaction mode, a broker with TLS and an ACL user, and a
cache of its own; each of them goes away in operation and comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from sqlalchemy import make_url

from service.local.ports import free_port
from service.local.state import StackState, running_stack
from tenants.roles import APP, OWNER, WORKER
from tests.conftest import TenantAccess, new_tenant, tessera
from tests.faults.own_stack import own_stack
from tests.faults.victims import back, child_of
from tests.pgbouncer import PgBouncer
from tests.redis_server import RedisServer, redis_server
from tests.service.test_redis_servers import LOGIN, documented_user

if TYPE_CHECKING:
    from tests.clusters import Cluster

POOL = 10
ON_THE_CACHE = {b"alive", b"members", b"places", b"check", b"worker-embedding-seconds"}
"""What the keys there begin with, after the installation's prefix."""


@dataclass(frozen=True)
class Given:
    """A stack on given servers."""

    stack: StackState
    settings: dict[str, str]
    admin: httpx.AsyncClient
    tenant: TenantAccess
    pooler: PgBouncer
    broker: RedisServer
    cache: RedisServer

    def restarts(self) -> dict[str, int]:
        """Return how often each child was started again by now."""
        state = running_stack(Path(self.stack.env["TESSERA_DATA_DIR"]))
        assert state is not None
        return {child.name: child.restarts for child in state.children}

    async def readiness(self) -> dict[str, str]:
        """Ask the API."""
        body: dict[str, str] = (await self.admin.get("/readyz")).json()
        return body


@pytest.fixture(scope="module")
async def given(postgres15: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Given]:
    urls = postgres15.made("given")  # `tessera up` migrates it
    words = {role: make_url(urls[role]).password or "" for role in (APP, WORKER)}
    pooler = PgBouncer(Path(tempfile.mkdtemp(prefix="pgbouncer-")), postgres15.port, words, POOL)
    with redis_server(tls=True, acl=documented_user()) as broker, redis_server() as cache:
        pooler.start()
        pooled = {r: make_url(urls[r]).set(port=pooler.port).render_as_string(hide_password=False) for r in words}
        settings = {
            "TESSERA_DATABASE_URL": pooled[APP],
            "TESSERA_DATABASE_WORKER_URL": pooled[WORKER],
            "TESSERA_DATABASE_OWNER_URL": urls[OWNER],
            "TESSERA_REDIS_URL": broker.url(LOGIN),
            "TESSERA_REDIS_CA_FILE": broker.ca_file,
            "TESSERA_REDIS_CACHE_URL": cache.url(cache.login),
        }
        data_dir = tmp_path_factory.mktemp("given") / "data"
        try:
            with own_stack(data_dir, **settings) as stack:
                headers = {"Authorization": f"Bearer {stack.admin_key}"}
                async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=60) as admin:
                    tenant = await new_tenant(admin, "given")
                    async with tenant.client:
                        yield Given(stack, settings, admin, tenant, pooler, broker, cache)
        finally:
            pooler.close()


async def test_documents_go_in_and_answers_come_out(given: Given) -> None:
    async def upload(n: int) -> str:
        done = await given.tenant.upload(f"Lock keeper {n} opens the gates of basin {n} at dawn.", f"lock{n}.txt")
        return str(done["job"]["state"])

    assert set(await asyncio.gather(*map(upload, range(12)))) == {"done"}
    hits = await given.tenant.search("Who opens the gates of basin 7?", k=3)
    assert "basin 7" in hits[0]["text"]
    document = (await given.tenant.client.get("/v1/documents")).json()["items"][0]["id"]
    assert (await given.tenant.client.delete(f"/v1/documents/{document}")).status_code == 202
    with given.cache.client() as cache, given.broker.client() as broker:
        assert {key.split(b":")[1] for key in cache.keys("*")} <= ON_THE_CACHE
        assert not {key.split(b":")[1] for key in broker.keys("*")} & {b"alive", b"members", b"places"}
        denied = {entry["object"] for entry in broker.acl_log()}
        assert {name for name in denied if not name.startswith("client")} == set()


async def test_doctor_finds_all_of_them_good_and_sees_the_pooler(given: Given, tmp_path: Path) -> None:
    done = tessera("doctor", data_dir=tmp_path / "other", TESSERA_API_PORT=str(free_port()), **given.settings)
    servers = [line for line in done.stdout.splitlines() if "Postgres as" in line or "Redis" in line]
    assert len(servers) == 4, done.stdout
    assert all(line.startswith("good") for line in servers), done.stdout
    assert sum("through a pooler" in line for line in servers) == 2
    assert "s3cret" not in done.stdout
    given.broker.client().config_set("maxmemory-policy", "allkeys-lru")
    done = tessera("doctor", data_dir=tmp_path / "other", TESSERA_API_PORT=str(free_port()), **given.settings)
    given.broker.client().config_set("maxmemory-policy", "noeviction")
    assert "set maxmemory-policy to noeviction" in done.stdout


async def test_without_the_cache_everything_goes_on(given: Given) -> None:
    given.cache.kill()
    assert (await given.tenant.upload("The tide table hangs in the lock house.", "tide.txt"))["job"]["state"] == "done"
    assert "lock house" in (await given.tenant.search("Where is the tide table?"))[0]["text"]
    assert (await given.readiness())["redis"] == "away"
    folder = Path(given.stack.env["TESSERA_DATA_DIR"])
    for name in ("worker", "scheduler"):
        killed = child_of(folder, name).pid
        os.kill(killed, signal.SIGKILL)
        await back(folder, name, killed)
    assert (await given.tenant.upload("The ebb begins at noon.", "ebb.txt"))["job"]["state"] == "done"
    assert {child_of(folder, name).state for name in ("worker", "scheduler")} == {"healthy"}
    given.cache.start()
    await until(given, redis="ok", worker="ok", scheduler="ok")


async def test_without_the_broker_uploads_are_acknowledged_and_done_when_it_is_back(given: Given) -> None:
    given.broker.kill()
    file = ("buoy.txt", b"The buoy tender sails on Friday.")
    answer = await given.tenant.client.post("/v1/documents", files={"file": file})
    assert answer.status_code == 202, answer.text
    assert (await given.tenant.client.post("/v1/search", json={"query": "tide"})).status_code == 200
    given.broker.start()
    assert (await given.tenant.job(answer.json()["job"]["id"]))["state"] == "done"


async def test_a_pooler_that_dies_is_got_over_without_a_restart(given: Given) -> None:
    before = given.restarts()
    given.pooler.kill()
    assert (await given.tenant.client.post("/v1/search", json={"query": "tide"})).status_code == 503
    given.pooler.start()
    await until(given, database="ok")
    assert (await given.tenant.upload("The pilot's launch is in dry dock.", "dock.txt"))["job"]["state"] == "done"
    assert given.restarts() == before


async def until(given: Given, **states: str) -> None:
    for _ in range(600):
        found = await given.readiness()
        if all(found[name] == state for name, state in states.items()):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(found)
