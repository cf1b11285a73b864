from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from ingestion.job_queue import Depth
from ingestion.models import Lane
from service.metrics import _queue

if TYPE_CHECKING:
    import httpx

    from tests.conftest import TenantAccess


async def test_metrics_count_searches_and_say_how_the_indexes_stand(
    admin: httpx.AsyncClient, tenant: TenantAccess
) -> None:
    await tenant.upload("Terns nest on the shingle bank.", "terns.txt")

    async def values() -> dict[str, dict[tuple[str, ...], float]]:
        answer = await admin.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain")
        return {
            family.name: {tuple(sample.labels.values()): sample.value for sample in family.samples}
            for family in text_string_to_metric_families(answer.text)
        }

    before = await values()
    await tenant.search("Where do terns nest?")
    after = await values()
    assert after["tessera_rows_scanned"][()] >= before["tessera_rows_scanned"][()] + 1
    assert sum(after["tessera_searches"].values()) == sum(before["tessera_searches"].values()) + 1
    assert 0 < after["tessera_partitions"][("main",)] < after["tessera_partition_budget"][("main",)]
    assert after["tessera_tier_tenants"][("pooled",)] >= 1
    assert after["tessera_tier_rows"][("pooled",)] >= 1
    assert set(after["tessera_upkeep_jobs"]) == {("queued",), ("running",), ("retrying",), ("failed",)}
    assert "tessera_index_load_seconds" in after


async def test_metrics_say_how_long_embedding_and_reranking_take(
    admin: httpx.AsyncClient, tenant: TenantAccess
) -> None:
    await tenant.upload("Terns nest on the shingle bank.", "terns.txt")

    async def counts() -> dict[tuple[str, tuple[str, ...]], float]:
        families = text_string_to_metric_families((await admin.get("/metrics")).text)
        return {
            (family.name, tuple(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
            if sample.name.endswith("_seconds_count")
        }

    model = "all-MiniLM-L6-v2"
    by_workers = ("tessera_worker_embedding_seconds", ("batch", model, "answered"))
    async with asyncio.timeout(20):  # they write every three seconds
        while not (before := await counts()).get(by_workers):
            await asyncio.sleep(0.2)
    await tenant.search("Where do terns nest?")
    after = await counts()
    assert ("tessera_embedding_seconds", ("batch", model, "answered")) in after
    for series in (
        ("tessera_embedding_seconds", ("question", model, "answered")),
        ("tessera_reranking_seconds", ("answered", "late_interaction")),
    ):
        assert after[series] == before.get(series, 0) + 1


def test_the_queue_is_gauged_by_the_workers_that_can_do_it() -> None:
    waits = [Depth("tessera", Lane.MAIN, "queued", 2, 20, 1.5), Depth("gpu", Lane.MAIN, "queued", 7, 70, 900.0)]
    found = {family.name: {tuple(one.labels.items()): one.value for one in family.samples} for family in _queue(waits)}
    assert found["tessera_queue_oldest_seconds"] == {
        (("lane", "main"), ("state", "queued"), ("queue", "tessera")): 1.5,
        (("lane", "main"), ("state", "queued"), ("queue", "gpu")): 900.0,
    }
    assert {name: list(values.values()) for name, values in found.items()} == {
        "tessera_queue_jobs": [2, 7],
        "tessera_queue_bytes": [20, 70],
        "tessera_queue_oldest_seconds": [1.5, 900.0],
    }


async def test_metrics_are_the_operators(tenant: TenantAccess, admin: httpx.AsyncClient) -> None:
    refused = await tenant.client.get("/metrics")
    assert (refused.status_code, tenant.slug in refused.text) == (401, False)
    assert (await admin.get("/metrics", headers={"Authorization": ""})).status_code == 401
