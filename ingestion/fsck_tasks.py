"""Checks of the stores as jobs: of one tenant, or of the whole installation (under `PLATFORM`), one tenant after
another."""

from __future__ import annotations

import logging
import time
from typing import Any
from uuid import UUID

from ingestion import jobs
from ingestion.batch import Batch, held
from ingestion.fsck import figures
from ingestion.fsck.check import Check
from ingestion.fsck.installation import examine_installation, known_tenants
from ingestion.fsck.report import merged
from ingestion.fsck.tenant import examine
from ingestion.models import Job
from ingestion.runtime import Runtime
from ingestion.tasks import Shell, bounded, fail_batch, task
from tenants.auth import PLATFORM
from tenants.errors import TesseraError

log = logging.getLogger(__name__)


@task("fsck")
def fsck(*, tenant_id: str, batch_id: str) -> None:
    """Compare the stores with Postgres."""
    Shell.run(bounded(_fsck(Shell.runtime, UUID(tenant_id), UUID(batch_id))))


async def _fsck(runtime: Runtime, tenant_id: UUID, batch_id: UUID) -> None:
    async with held(runtime.database, runtime.settings, tenant_id, batch_id) as batch:
        if not batch.jobs:
            return
        [job] = batch.jobs
        try:
            if tenant_id == PLATFORM:
                result = await _check_installation(runtime, batch, job)
            else:
                result = await check_tenant(runtime, tenant_id, job, lambda share: batch.advance("checking", share))
        except TesseraError as error:
            log.warning("check of tenant %s: %s", tenant_id, error.detail)
            await fail_batch(runtime, tenant_id, batch_id, error)
            return
        async with runtime.database.tenant(tenant_id) as session:
            if await jobs.hold(session, tenant_id, batch_id, [job.id]):
                await jobs.finish(session, tenant_id, {job.id: result})
                await session.commit()


async def check_tenant(runtime: Runtime, tenant_id: UUID, job: Job, advance: Any) -> dict[str, Any]:
    """Check one tenant and keep the figures; return the report."""
    began = time.monotonic()
    check = Check(runtime, tenant_id, deep=bool(job.payload.get("deep")), advance=advance)
    await examine(check)
    result = _result(check, time.monotonic() - began)
    async with runtime.database.tenant(tenant_id) as session:
        await figures.store(session, tenant_id, result)
        await session.commit()
    return result


def _result(check: Check, seconds: float) -> dict[str, Any]:
    shown = check.report.shown()
    return {**shown, "left": check.report.counts, "left_total": check.report.total, "repaired": 0, "seconds": seconds}


async def _check_installation(runtime: Runtime, batch: Batch, job: Job) -> dict[str, Any]:
    """Check what belongs to no tenant, then every tenant."""
    began = time.monotonic()
    check = Check(runtime, PLATFORM, advance=lambda share: batch.advance("installation", 0.1 * share))
    await examine_installation(check)
    result = _result(check, 0.0)
    tenants = sorted(await known_tenants(check))
    worst: list[dict[str, Any]] = []
    for number, tenant_id in enumerate(tenants):
        batch.advance("tenants", 0.1 + 0.9 * number / len(tenants))
        one = await check_tenant(runtime, tenant_id, job, lambda _share: None)
        for name in ("differences", "left"):
            result[name] = merged(result[name], one[name])
        if one["total"]:
            worst.append({"tenant_id": str(tenant_id), "total": one["total"], "left": one["left_total"]})
    result["tenants"] = {"checked": len(tenants), "with_differences": worst}
    result["total"] = _sum(result["differences"])
    result["left_total"] = _sum(result["left"])
    return result | {"seconds": round(time.monotonic() - began, 3)}


def _sum(counts: dict[str, dict[str, int]]) -> int:
    return sum(sum(classes.values()) for classes in counts.values())
