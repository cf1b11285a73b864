"""Checks of the stores as jobs: of one tenant, or of the whole installation (under `PLATFORM`), one tenant after
another."""

from __future__ import annotations

import logging
import time
from typing import Any
from uuid import UUID

from ingestion import jobs
from ingestion import retention as sweeping
from ingestion.batch import Batch, held
from ingestion.fsck import figures, mend
from ingestion.fsck.check import Check, pieces
from ingestion.fsck.installation import examine_installation, known_tenants
from ingestion.fsck.report import Report, merged
from ingestion.fsck.rows import Breaches
from ingestion.fsck.tenant import examine
from ingestion.models import Job
from ingestion.pipeline import GROUP_CHUNKS, plan_index
from ingestion.runtime import Runtime, of_tenant
from ingestion.tasks import Shell, bounded, fail_batch, task
from tenants.auth import PLATFORM
from tenants.errors import TesseraError

log = logging.getLogger(__name__)
_ROUNDS = 4
"""Most rounds of mending and checking again."""
_VERSIONS_AT_ONCE = 50


@task("fsck")
def fsck(*, tenant_id: str, batch_id: str) -> None:
    """Compare the stores with Postgres."""
    Shell.run(bounded(_fsck(Shell.runtime, UUID(tenant_id), UUID(batch_id))))


@task("retention")
def retention(*, tenant_id: str, batch_id: str) -> None:
    """Delete what is too old, and the versions beyond those that are to be kept."""
    Shell.run(bounded(_retention(Shell.runtime, UUID(tenant_id), UUID(batch_id))))


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
    """Check one tenant, mend it when the job asks for that, and keep the figures; return the report."""
    began = time.monotonic()
    check = Check(runtime, tenant_id, _asked(job, "repair"), _asked(job, "deep"), advance)
    breaches = await examine(check)
    found = left = check.report
    for _ in range(_ROUNDS if check.repair else 0):
        if not left.total:
            break
        await _mend(check, breaches)
        again = Check(runtime, tenant_id, deep=check.deep)
        await examine(again)
        before, left = left.total, again.report
        if not left.total or left.total >= before:
            break
        check = Check(runtime, tenant_id, repair=True, deep=check.deep)  # for what hid behind what was mended
        breaches = await examine(check)
    result = _result(found, left, time.monotonic() - began)
    async with runtime.database.tenant(tenant_id) as session:
        await figures.store(session, tenant_id, result)
        await session.commit()
    return result


async def _mend(check: Check, breaches: Breaches) -> None:
    """Mend a tenant's rows, then make again what its stores lack; the writer lock is held for one piece at a time."""
    runtime, database, tenant_id = check.runtime, check.runtime.database, check.tenant_id
    async with database.writer_lock(tenant_id), database.tenant(tenant_id) as session:
        await mend.mend_rows(session, check, breaches)
        await mend.flag_originals(session, tenant_id, check.originals, deep=check.deep)
        await session.commit()
    made: list[mend.Passages] = []
    waiting = sorted(check.without_vectors)
    runtime = await of_tenant(runtime, tenant_id) if waiting else runtime
    for number, version in enumerate(waiting, start=1):
        passages = await mend.embedded(runtime, tenant_id, version)
        made += [passages] if passages.texts else []
        if made and (number == len(waiting) or sum(len(one.texts) for one in made) >= GROUP_CHUNKS):
            async with database.writer_lock(tenant_id), database.tenant(tenant_id) as session:
                await plan_index(session, runtime, tenant_id)
                await session.commit()
                await mend.restore_vectors(session, runtime, tenant_id, made)
                await session.commit()
            made = []
    for some in pieces(sorted(check.without_words), _VERSIONS_AT_ONCE):
        async with database.writer_lock(tenant_id), database.tenant(tenant_id) as session:
            await mend.restore_words(session, runtime, tenant_id, some)


def _asked(job: Job, what: str) -> bool:
    return bool(job.payload.get(what))


def _result(found: Report, left: Report, seconds: float) -> dict[str, Any]:
    repaired = max(found.total - left.total, 0)
    after = {"left": left.counts, "left_total": left.total, "repaired": repaired}
    return {**found.shown(), **after, "seconds": round(seconds, 3)}


async def _check_installation(runtime: Runtime, batch: Batch, job: Job) -> dict[str, Any]:
    """Check what belongs to no tenant, then every tenant."""
    began = time.monotonic()
    check = Check(
        runtime,
        PLATFORM,
        repair=_asked(job, "repair"),
        advance=lambda share: batch.advance("installation", 0.1 * share),
    )
    await examine_installation(check)
    after = check
    if check.repair and check.report.total:
        after = Check(runtime, PLATFORM)
        await examine_installation(after)
    result = _result(check.report, after.report, 0.0)
    tenants = sorted(await known_tenants(check)) if _asked(job, "tenants") else []
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
    result["repaired"] = max(result["total"] - result["left_total"], 0)
    return result | {"seconds": round(time.monotonic() - began, 3)}


def _sum(counts: dict[str, dict[str, int]]) -> int:
    return sum(sum(classes.values()) for classes in counts.values())


async def _retention(runtime: Runtime, tenant_id: UUID, batch_id: UUID) -> None:
    database = runtime.database
    async with held(database, runtime.settings, tenant_id, batch_id) as batch:
        if not batch.jobs:
            return
        done = {"deleted": 0, "purged": 0}
        for name, sweep in (("deleted", sweeping.delete_aged), ("purged", sweeping.queue_purges)):
            more = sweeping.AT_ONCE
            while more == sweeping.AT_ONCE:
                async with database.tenant(tenant_id) as session:
                    more = await sweep(session, tenant_id)
                    await session.commit()
                done[name] += more
        async with database.tenant(tenant_id) as session:
            if await jobs.hold(session, tenant_id, batch_id, [batch.jobs[0].id]):
                await jobs.finish(session, tenant_id, {batch.jobs[0].id: done})
                await session.commit()
