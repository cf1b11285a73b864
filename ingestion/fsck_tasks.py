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
from tenants.errors import Conflict, TesseraError

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
                result = await _check_all(runtime, batch, job)
            else:
                result = await check_tenant(runtime, tenant_id, job, lambda share: batch.advance("checking", share))
        except TesseraError as error:
            log.warning("check of tenant %s: %s", tenant_id, error.detail)
            await _note_not_checked(runtime, tenant_id)
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
                if await plan_index(session, runtime, tenant_id):
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
    after = {"left": left.counts, "left_total": left.total, "repaired": repaired, "not_checked": left.not_checked}
    return {**found.shown(), **after, "seconds": round(seconds, 3)}


async def _note_not_checked(runtime: Runtime, tenant_id: UUID) -> None:
    async with runtime.database.tenant(tenant_id) as session:
        await figures.note_not_checked(session, tenant_id)
        await session.commit()


async def _check_all(runtime: Runtime, batch: Batch, job: Job) -> dict[str, Any]:
    """Check what belongs to no tenant, then every tenant: where an attempt that was cut off was, if there was one."""
    began = time.monotonic()
    so_far = job.payload.get("so_far")
    result = so_far["result"] if so_far else await _check_installation(runtime, batch, job)
    before, last = result["seconds"], UUID(so_far["last"]) if so_far else UUID(int=0)
    tenants = sorted(await known_tenants(runtime.database)) if _asked(job, "tenants") else []
    for number, tenant_id in enumerate(tenants):
        if tenant_id <= last:
            continue
        batch.advance("tenants", 0.1 + 0.9 * number / len(tenants))
        _add(result, tenant_id, await _check_one_of_all(runtime, tenant_id, job))
        result["seconds"] = round(before + time.monotonic() - began, 3)
        async with runtime.database.tenant(PLATFORM) as session:
            state = {"so_far": {"last": str(tenant_id), "result": result}}
            if not await jobs.keep_state(session, batch.batch_id, job, state):
                raise Conflict("The check belongs to another worker by now.", code="job_lost")
            await session.commit()
    return result | {"seconds": round(before + time.monotonic() - began, 3)}


async def _check_one_of_all(runtime: Runtime, tenant_id: UUID, job: Job) -> dict[str, Any]:
    """Check a tenant; where that cannot be done, say so and let the others have their turn."""
    try:
        return await check_tenant(runtime, tenant_id, job, lambda _share: None)
    except TesseraError as error:
        log.warning("check of tenant %s: %s", tenant_id, error.detail)
        await _note_not_checked(runtime, tenant_id)
        nothing = Report()
        nothing.skip(f"tenant {tenant_id}", error.detail)
        return _result(nothing, nothing, 0.0)


def _add(result: dict[str, Any], tenant_id: UUID, one: dict[str, Any]) -> None:
    """Add what was found of a tenant to what was found before."""
    for name in ("differences", "left"):
        result[name] = merged(result[name], one[name])
    for name in ("total", "left_total", "repaired"):
        result[name] += one[name]
    result["not_checked"] += one["not_checked"]
    result["tenants"]["checked"] += not one["not_checked"]
    if one["total"]:
        shown = {"tenant_id": str(tenant_id), "total": one["total"], "left": one["left_total"]}
        result["tenants"]["with_differences"].append(shown)


async def _check_installation(runtime: Runtime, batch: Batch, job: Job) -> dict[str, Any]:
    """Check what belongs to no tenant."""
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
    result = _result(check.report, after.report, time.monotonic() - began)
    own = {"left": result["left"], "not_checked": len(result["not_checked"])}
    return result | {"installation": own, "tenants": {"checked": 0, "with_differences": []}}


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
