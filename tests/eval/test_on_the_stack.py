"""The same evaluation on the real service."""

from __future__ import annotations

from pathlib import Path

from eval.client import TesseraClient
from eval.datasets import load_set
from eval.progress import Silent
from eval.retrieval import Plan, evaluate
from service.local.state import StackState

HARBOUR = Path(__file__).parent / "harbour"


async def test_a_set_is_measured_on_the_real_service(stack: StackState) -> None:
    async with TesseraClient(stack.url, stack.admin_key) as admin:
        report = await evaluate(admin, Plan(), load_set(HARBOUR), Silent())
        slugs = [tenant["slug"] async for tenant in admin.tenants()]
    assert report.ingestion is not None
    assert (report.ingestion.refused, report.ingestion.failed) == ({}, {"document_empty": 1})
    assert report.figures["recall@10"].value == 1.0
    assert report.figures["ndcg@10"].value > 0.9
    assert report.degraded == {}
    assert {"embed", "ann", "bm25", "fuse", "total"} <= set(report.server_ms)
    assert report.tenant not in slugs


async def test_a_kept_tenant_is_asked_again_with_another_weight(stack: StackState) -> None:
    async with TesseraClient(stack.url, stack.admin_key) as admin:
        first = await evaluate(admin, Plan(tenant="eval-kept", keep=True), load_set(HARBOUR), Silent())
        second = await evaluate(admin, Plan(tenant="eval-kept", bm25_weight=1.0), load_set(HARBOUR), Silent())
        (tenant,) = [one async for one in admin.tenants() if one["slug"] == "eval-kept"]
        await admin.wait_for_job((await admin.delete_tenant(tenant["id"]))["id"])
    assert first.ingestion is not None
    assert second.ingestion is None
    assert tenant["settings"] == {"bm25_weight": 1.0}
    assert {asked.id for asked in first.questions} == {asked.id for asked in second.questions}
