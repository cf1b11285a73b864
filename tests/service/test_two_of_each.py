"""Several API processes, workers and schedulers behave as one service, and leave it one after the other unnoticed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx
import pytest
from redis.asyncio import Redis

from ingestion.jobs import new_job
from tenants.db import Database
from tenants.settings import DatabaseSettings
from tenants.shared_places import SharedPlaces
from tests.embedding_server import NAME
from tests.service.two_of_each import DELAY_S, Started, at, second_ones

if TYPE_CHECKING:
    from service.local.state import StackState
    from tests.conftest import TenantAccess

Clients = tuple[httpx.AsyncClient, httpx.AsyncClient]
STREAMS, SEARCHES = 20, 8
"""What a tenant may have at once by the default settings."""


@pytest.fixture(scope="module")
async def others(stack: StackState, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Started]]:
    """Two API processes, a worker and a scheduler beside those of the stack."""
    started = second_ones(stack, tmp_path_factory.mktemp("others"))
    try:
        await asyncio.gather(*(one.healthy() for one in started.values()))
        yield started
    finally:
        for one in started.values():
            one.process.kill()
            one.process.wait()


@pytest.fixture
async def both(others: dict[str, Started], tenant: TenantAccess) -> AsyncIterator[Clients]:
    """The tenant's clients of two API processes."""
    here, there = (at(others[name].url, tenant.client) for name in ("api-b", "api-c"))
    async with here, there:
        yield here, there


async def statuses(clients: Clients, times: int = 5) -> set[int]:
    answers = await asyncio.gather(*(client.get("/v1/documents") for client in clients for _ in range(times)))
    return {answer.status_code for answer in answers}


async def found(clients: Clients, query: str) -> list[set[str]]:
    """Return the documents that each process finds; nothing may be missing on the way."""
    answers = await asyncio.gather(*(one.post("/v1/search", json={"query": query, "k": 50}) for one in clients))
    assert [answer.json()["degraded"] for answer in answers] == [[], []]
    return [{hit["document_id"] for hit in answer.json()["hits"]} for answer in answers]


async def test_a_revoked_key_is_refused_by_all_from_the_answer_on(
    both: Clients, admin: httpx.AsyncClient, tenant: TenantAccess
) -> None:
    for revoking in both:
        made = (await admin.post(f"/v1/admin/tenants/{tenant.id}/keys", json={"name": "spare"})).json()
        keyed = tuple(httpx.AsyncClient(base_url=c.base_url, headers=_bearer(made["key"]), timeout=60) for c in both)
        assert await statuses(keyed) == {200}
        asking = asyncio.create_task(_ask_on(keyed))
        operator = httpx.AsyncClient(base_url=revoking.base_url, headers=dict(admin.headers), timeout=60)
        answer = await operator.delete(f"/v1/admin/tenants/{tenant.id}/keys/{made['id']}")
        assert answer.status_code == 204
        assert await statuses(keyed) == {401}
        assert await asking <= {200, 401}
        for client in (*keyed, operator):
            await client.aclose()


async def _ask_on(clients: Clients) -> set[int]:
    """Ask without pause, so that the key is believed by both at any moment."""
    seen: set[int] = set()
    while 401 not in seen:
        seen |= await statuses(clients, 1)
    return seen


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_a_suspended_and_an_erased_tenant_is_refused_by_all(
    both: Clients, others: dict[str, Started], admin: httpx.AsyncClient, tenant: TenantAccess
) -> None:
    async with at(others["api-b"].url, admin) as operator:
        assert await statuses(both) == {200}
        assert (await operator.post(f"/v1/admin/tenants/{tenant.id}/suspend")).status_code == 200
        assert await statuses(both) == {403}
        assert (await operator.post(f"/v1/admin/tenants/{tenant.id}/resume")).status_code == 200
        assert await statuses(both) == {200}
        assert (await operator.delete(f"/v1/admin/tenants/{tenant.id}")).status_code == 202
        assert await statuses(both) == {401}


async def test_streams_are_counted_over_all(both: Clients, stack: StackState, tenant: TenantAccess) -> None:
    waiting = await _job_that_waits(stack, tenant)
    async with AsyncExitStack() as stack:
        path, turns = f"/v1/jobs/{waiting}/events", itertools.cycle(both)
        opened = [await stack.enter_async_context(next(turns).stream("GET", path)) for _ in range(STREAMS)]
        assert {answer.status_code for answer in opened} == {200}
        refused = [await client.get(path) for client in both]
        assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(429, "too_many_streams")] * 2


async def _job_that_waits(stack: StackState, tenant: TenantAccess) -> UUID:
    """Return a job that is not due for an hour."""
    database = Database(stack.env["TESSERA_DATABASE_WORKER_URL"], DatabaseSettings(pool_size=1))
    job = new_job(UUID(tenant.id), "release", delay=timedelta(hours=1))
    async with database.tenant(UUID(tenant.id)) as session, session.begin():
        session.add(job)
    await database.aclose()
    return job.id


async def test_searches_are_counted_over_all(both: Clients, stack: StackState, tenant: TenantAccess) -> None:
    await tenant.upload("The ferry leaves the old harbour at nine.")
    redis = Redis.from_url(stack.env["TESSERA_REDIS_URL"])
    places = SharedPlaces(redis, stack.env.get("TESSERA_REDIS_PREFIX", "tessera"))
    async with AsyncExitStack() as taken:
        for _ in range(SEARCHES):  # as searches on other processes would
            await taken.enter_async_context(places.taken("searches", UUID(tenant.id), SEARCHES))
        asked = [asyncio.create_task(one.post("/v1/search", json={"query": "ferry"})) for one in both]
        done, _ = await asyncio.wait(asked, timeout=1.0)
        assert not done, "a search ran beside as many as the tenant may have"
    assert [(await one).status_code for one in asked] == [200, 200]
    await places.aclose()


async def test_an_idempotency_key_is_good_on_all(both: Clients) -> None:
    headers = {"Idempotency-Key": str(uuid4())}
    file = {"file": ("note.txt", b"The lamp room opens at dusk.")}
    answers = await asyncio.gather(*(c.post("/v1/documents", files=file, headers=headers) for c in both * 3))
    assert {answer.status_code for answer in answers} <= {202, 409}
    again = [await client.post("/v1/documents", files=file, headers=headers) for client in both]
    assert {answer.headers["idempotency-replayed"] for answer in again} == {"true"}
    jobs = {answer.json()["job"]["id"] for answer in (*answers, *again) if answer.status_code == 202}
    assert len(jobs) == 1


async def test_a_conversation_goes_on_elsewhere(both: Clients, tenant: TenantAccess) -> None:
    await tenant.upload("The night ferry to Velmis leaves at 22:40 from pier four.")
    here, there = both
    first = (await here.post("/v1/chat", json={"message": "When does the ferry leave?", "stream": False})).json()
    body = {"message": "From which pier?", "stream": False, "conversation_id": first["conversation_id"]}
    second = await there.post("/v1/chat", json=body)
    assert second.json()["conversation_id"] == first["conversation_id"]
    said = (await here.get(f"/v1/conversations/{first['conversation_id']}")).json()["messages"]
    assert [message["role"] for message in said] == ["user", "assistant"] * 2
    assert (await there.delete(f"/v1/conversations/{first['conversation_id']}")).status_code == 204
    assert (await here.post("/v1/chat", json=body)).status_code == 404


async def test_what_is_deleted_or_moved_is_so_for_all(
    both: Clients, tenant: TenantAccess, admin: httpx.AsyncClient
) -> None:
    ids = {(await tenant.upload(f"Ledger {n} of the amber trade."))["document"]["id"] for n in range(3)}
    assert await found(both, "amber trade") == [ids, ids]
    gone = ids.pop()
    assert (await both[0].delete(f"/v1/documents/{gone}")).status_code == 202
    assert await found(both, "amber trade") == [ids, ids]
    for path, body in (
        ("placement", {"tier": "dedicated"}),  # another generation of the index
        ("reindex", {"embedding_model": NAME}),  # and one of another model
    ):
        asked = await admin.post(f"/v1/admin/tenants/{tenant.id}/{path}", json=body)
        assert asked.status_code == 202, asked.text
        asking = asyncio.create_task(_found_meanwhile(both, ids))
        await _ended(admin, asked.json()["job"]["id"])
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert await found(both, "amber trade") == [ids, ids]


async def _found_meanwhile(clients: Clients, ids: set[str]) -> None:
    while True:
        assert await found(clients, "amber trade") == [ids, ids]


async def _ended(admin: httpx.AsyncClient, job_id: str) -> None:
    for _ in range(600):
        job = (await admin.get(f"/v1/jobs/{job_id}")).json()
        if job["state"] in ("done", "failed", "cancelled"):
            assert job["state"] == "done", job
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the job did not end")


async def test_each_says_in_its_metrics_which_one_it_is(others: dict[str, Started], admin: httpx.AsyncClient) -> None:
    for name in ("api-b", "api-c"):
        async with at(others[name].url, admin) as operator:
            assert f'tessera_process_info{{process="{name}"}} 1.0' in (await operator.get("/metrics")).text


async def test_two_workers_share_the_jobs_and_no_job_is_done_twice(
    others: dict[str, Started], make_tenant: Any, stack: StackState
) -> None:
    crowd = [await make_tenant(f"crowd{n}") for n in range(6)]
    workers = [others["worker-b"].spec.log, Path(stack.env["TESSERA_DATA_DIR"]) / "logs" / "worker.log"]
    done: list[dict[str, Any]] = []
    for turn in range(10):
        texts = [(one, f"Note {turn} of {one.slug}: the crane at pier {turn} is closed.") for one in crowd]
        done += [result["job"] for result in await asyncio.gather(*(one.upload(text) for one, text in texts))]
        logs = [path.read_text() for path in workers]
        if all(any(f"tenant {one.id}: 1 documents" in log for one in crowd) for log in logs):
            break
    else:
        pytest.fail("one of the workers was given nothing")
    assert {(job["state"], job["attempts"]) for job in done} == {("done", 1)}
    logged = {one.id: 0 for one in crowd}
    for _ in range(100):  # a worker logs a batch after its jobs are done
        logs = [path.read_text() for path in workers]
        logged = {one.id: sum(log.count(f"tenant {one.id}: 1 documents") for log in logs) for one in crowd}
        if min(logged.values()) > turn:
            break
        await asyncio.sleep(0.1)
    assert set(logged.values()) == {turn + 1}, "a document was ingested twice"
    for one in crowd:
        assert len(await one.search("crane closed", k=50)) == turn + 1
        await one.client.aclose()


class Load:
    """Clients that search, chat and upload without pause, each request at the next process that takes connections."""

    def __init__(self, tenants: list[TenantAccess], urls: list[str]) -> None:
        self.tenants, self.urls = tenants, urls
        self.failures: list[str] = []
        self.served: dict[str, int] = dict.fromkeys(urls, 0)
        self.jobs: list[tuple[TenantAccess, str]] = []
        self.stop = asyncio.Event()

    async def run(self, tenant: TenantAccess) -> None:
        clients = {url: at(url, tenant.client) for url in self.urls}
        turns = itertools.cycle(self.urls)
        for number in itertools.count():
            if self.stop.is_set():
                break
            for _ in self.urls:
                url = next(turns)
                try:
                    await self._one(tenant, clients[url], number)
                except httpx.ConnectError:  # it has left: a balancer takes the next one
                    continue
                except httpx.HTTPError as error:
                    self.failures.append(f"{url}: {type(error).__name__}: {error}")
                self.served[url] += 1
                break
            else:
                self.failures.append("nobody takes connections")
        for client in clients.values():
            await client.aclose()

    async def _one(self, tenant: TenantAccess, client: httpx.AsyncClient, number: int) -> None:
        if number % 3 == 0:
            file = {"file": (f"{uuid4()}.txt", f"Entry {uuid4()} of the harbour book.".encode())}
            answer = await client.post("/v1/documents", files=file)
            if answer.status_code == 202:
                self.jobs.append((tenant, answer.json()["job"]["id"]))
        elif number % 3 == 1:
            answer = await client.post("/v1/chat", json={"message": "What does the harbour book say?"})
            if "event: done" not in answer.text:
                self.failures.append(f"an answer broke off: {answer.text[-200:]}")
        else:
            answer = await client.post("/v1/search", json={"query": "harbour book"})
        if answer.status_code not in (200, 202):
            self.failures.append(f"{client.base_url}: {answer.status_code} {answer.text[:200]}")


async def test_all_leave_in_turn_under_load_and_nothing_fails_or_is_lost(
    others: dict[str, Started], make_tenant: Any, stack: StackState
) -> None:
    """The last one here: afterwards only the stack's own processes are left."""
    polite, *tenants = [await make_tenant(f"rolling{n}") for n in range(4)]
    load = Load(tenants, [others["api-b"].url, others["api-c"].url, stack.url])
    running = [asyncio.create_task(load.run(tenant)) for tenant in tenants]
    await asyncio.sleep(1.5)
    for name in ("api-b", "worker-b", "scheduler-b", "api-c"):
        leaving = others[name]
        if name.startswith("api"):
            await _leaves_politely(leaving, polite, await _job_that_waits(stack, polite))
        else:
            leaving.tell_to_stop()
        assert await leaving.ended() == 0, leaving.log[-3000:]
        await asyncio.sleep(0.5)
    load.stop.set()
    await asyncio.gather(*running)
    assert load.failures == [], [started.log[-2000:] for started in others.values()]
    assert min(load.served.values()) > 0
    jobs = [await tenant.job(job_id) for tenant, job_id in load.jobs]
    assert {(job["state"], job["attempts"]) for job in jobs} == {("done", 1)}, [j for j in jobs if j["attempts"] != 1]
    for tenant in tenants:
        mine = [job_id for owner, job_id in load.jobs if owner is tenant]
        assert len(await tenant.search("harbour book", k=100, exact=True)) == min(len(mine), 100)
    for tenant in (polite, *tenants):
        await tenant.client.aclose()


async def _takes_connections(started: Started) -> bool:
    async with httpx.AsyncClient(base_url=started.url) as fresh:
        try:
            return (await fresh.get("/healthz")).status_code == 200
        except httpx.ConnectError:
            return False


async def _leaves_politely(leaving: Started, tenant: TenantAccess, job: UUID) -> None:
    """It is not ready first, ends streams with a hint, and ends what is under way, however late that is."""
    told, closed = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        text = b'--x\r\nContent-Disposition: form-data; name="file"; filename="late.txt"\r\n\r\nA late'
        yield text
        await closed.wait()
        yield f" note, {uuid4()}.\r\n--x--\r\n".encode()

    async def follow() -> str:
        async with at(leaving.url, tenant.client) as client, client.stream("GET", f"/v1/jobs/{job}/events") as events:
            told.set()
            return (await events.aread()).decode()

    probes = httpx.AsyncClient(base_url=leaving.url)
    async with probes, at(leaving.url, tenant.client) as client:
        multipart = {"Content-Type": "multipart/form-data; boundary=x"}
        late = asyncio.create_task(client.post("/v1/documents", content=body(), headers=multipart))
        following = asyncio.create_task(follow())
        await told.wait()
        assert (await probes.get("/servingz")).status_code == 200
        leaving.tell_to_stop()
        await asyncio.sleep(DELAY_S / 3)
        assert [(await probes.get(path)).status_code for path in ("/servingz", "/readyz")] == [503, 503]
        taken = await client.post("/v1/search", json={"query": "late"})
        assert (taken.status_code, taken.headers["connection"]) == (200, "close")
        assert (await following).endswith('retry: 1000\nevent: reconnect\ndata: {"after_ms": 1000}\n\n')
        while await _takes_connections(leaving):
            await asyncio.sleep(0.05)
        closed.set()
        assert (await late).status_code == 202
