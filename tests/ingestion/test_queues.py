"""Tenants whose embedding model is computed by workers of a queue of its own: who is given what, and who waits."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import pytest
from sqlalchemy import delete

from ingestion import job_queue, jobs
from ingestion.models import Lane
from ingestion.queues import COMMON, ModelQueues, QueueWatch
from service.queues_read import queues_read
from service.settings import Settings
from shards.catalog import Recipe
from shards.catalog_postgres import PostgresCatalog
from shards.index_models import IndexGeneration
from shards.names import Space
from shards.settings import EmbedModel, EmbedSettings
from shards.torch_models import has_torch
from tenants.errors import Misconfigured
from tests.ingestion.queue_rows import Queue

MODELS = ModelQueues("all-MiniLM-L6-v2", {"big": "gpu", "other": "gpu-eu"})


async def live_model(queue: Queue, tenant_id: UUID, model: str) -> None:
    async with queue.transaction(tenant_id) as session:
        await session.execute(delete(IndexGeneration).where(IndexGeneration.tenant_id == tenant_id))
        space = Space(tenant_id, 1, 4, "pooled")
        await PostgresCatalog(session, tenant_id).plan(space, state="live", recipe=Recipe(model), edition=1)


def sent(queue: Queue) -> Counter[tuple[UUID, str, str]]:
    return Counter((one.tenant_id, one.task.removeprefix("ingestion."), one.queue) for one in queue.sent)


async def test_what_embeds_goes_to_the_workers_of_the_model_and_all_else_to_any(queue: Queue) -> None:
    plain, big, _ = queue.tenants
    await live_model(queue, big, "big")
    queue.start(models=MODELS, in_flight=20, in_flight_per_tenant=20, background_in_flight=20, batch_documents=1)
    queue.serve("gpu")
    for tenant_id in (plain, big):
        for kind in ("ingest", "delete", "partition", "reembed", "release"):
            await queue.add(tenant_id, kind=kind)
    await queue.tick()
    assert sent(queue) == Counter(
        {
            **{(plain, task, COMMON): 1 for task in ("ingest", "purge", "partition", "reembed", "release")},
            **{(big, task, COMMON): 1 for task in ("purge", "release")},
            **{(big, task, "gpu"): 1 for task in ("ingest", "partition", "reembed")},
        }
    )


async def test_while_no_such_worker_lives_its_jobs_wait_and_take_no_place(queue: Queue) -> None:
    plain, big, _ = queue.tenants
    await live_model(queue, big, "big")
    queue.start(models=MODELS, in_flight=2, in_flight_per_tenant=2, batch_documents=1)
    await queue.add(big, 20)
    await queue.add(plain, 4)
    assert await queue.tick() == 2
    assert {one.tenant_id for one in queue.sent} == {plain}
    assert (await queue.states(big)) == Counter(queued=20)
    for batch in queue.sent[:]:
        await queue.finish(batch)
    queue.serve("gpu")
    assert await queue.tick() == 4, "each queue has places of its own"
    assert Counter(one.queue for one in queue.sent[2:]) == {"gpu": 2, COMMON: 2}
    assert await queue.tick() == 0


async def test_what_waits_for_an_absent_worker_of_a_model_is_told_from_what_waits_for_any(queue: Queue) -> None:
    plain, big, _ = queue.tenants
    await live_model(queue, big, "big")
    await queue.add(plain, 2, cost=10)
    await queue.add(big, 3, cost=100)
    await queue.add(big, kind="delete", cost=0)
    async with queue.database.dispatcher() as session:
        found = await job_queue.depths(session, MODELS)
        everything = await job_queue.depths(session)
    assert [(one.queue, one.lane, one.state, one.jobs, one.bytes) for one in found] == [
        ("gpu", Lane.MAIN, "queued", 3, 300),
        (COMMON, Lane.MAIN, "queued", 3, 20),
    ]
    assert all(0 <= one.oldest_s < 600 for one in found)
    assert [(one.queue, one.jobs, one.bytes) for one in everything] == [(COMMON, 6, 320)]


async def test_a_job_says_that_no_worker_computes_its_model(queue: Queue) -> None:
    plain, big, _ = queue.tenants
    await live_model(queue, big, "big")
    served: set[str] = set()

    async def alive() -> frozenset[str]:
        return frozenset(served)

    watch = QueueWatch(MODELS, alive)
    for tenant_id in (plain, big):
        await queue.add(tenant_id)
        await queue.add(tenant_id, kind="delete")
    found = {}
    for tenant_id in (plain, big):
        mine = await queue.jobs(tenant_id)
        async with queue.database.tenant(tenant_id) as session:
            ids = await watch.unserved(session, tenant_id, mine)
        found[tenant_id] = {job.kind for job in mine if job.id in ids}
    assert found == {plain: set(), big: {"ingest"}}
    served.add("gpu")
    async with queue.database.tenant(big) as session:
        assert await watch.unserved(session, big, await queue.jobs(big)) == set()


async def test_a_tenant_that_moves_is_embedded_by_the_workers_of_its_next_model(queue: Queue) -> None:
    moving, default, _ = queue.tenants
    queue.start(models=ModelQueues("big", {"big": "gpu"}), in_flight=20, background_in_flight=20)
    queue.serve("gpu")
    await live_model(queue, moving, "all-MiniLM-L6-v2")
    async with queue.transaction(moving) as session:
        session.add(jobs.new_job(moving, "reembed", payload={"embedding_model": "big", "wish": "run"}))
    await queue.add(moving)
    await queue.add(default)  # it has no index yet, so it is the default's
    await queue.tick()
    assert sent(queue) == Counter(
        {(moving, "reembed", "gpu"): 1, (moving, "ingest", COMMON): 1, (default, "ingest", "gpu"): 1}
    )


async def test_slow_documents_have_places_in_each_queue(queue: Queue) -> None:
    plain, big, _ = queue.tenants
    await live_model(queue, big, "big")
    queue.start(models=MODELS, slow_in_flight=2)
    queue.serve("gpu")
    for tenant_id in (plain, big):
        await queue.add(tenant_id, 5, lane=Lane.SLOW)
    assert await queue.tick() == 4
    assert Counter(one.queue for one in queue.sent) == {COMMON: 2, "gpu": 2}


def settings(queues: str = "", **models: EmbedModel) -> Settings:
    made = Settings()
    made.embed = EmbedSettings(models=models)
    made.ingest.queues = queues
    return made


BIG = EmbedModel(kind="sentence-transformers", dim=384)
REMOTE = EmbedModel(kind="openai", url="http://host/v1", dim=384)


@pytest.mark.skipif(has_torch(), reason="the extra `torch` is installed")
def test_a_worker_reads_no_queue_of_what_it_cannot_compute() -> None:
    assert settings(big=BIG, remote=REMOTE).embed.queues == ["gpu"]
    assert queues_read(settings(big=BIG, remote=REMOTE)) == [COMMON]
    assert queues_read(settings("tessera", big=BIG)) == [COMMON]
    with pytest.raises(Misconfigured, match=r"TESSERA_INGEST_QUEUES is 'gpu'.*tessera\[torch\]"):
        queues_read(settings("gpu", big=BIG))
    with pytest.raises(Misconfigured, match="TESSERA_INGEST_QUEUES names 'gpu'; the queues are tessera"):
        queues_read(settings("gpu", remote=REMOTE))
