"""The tenant that an evaluation works in: made for it, or one that an earlier evaluation kept."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from eval.client import Json, TesseraClient
from eval.progress import Progress
from tenants.errors import InvalidRequest, TesseraError

PLAN = "evaluation"
"""Plan of the tenants made here. Only these are written to, changed or deleted."""
_KEY_NAME = "evaluation"
_ERASURE_PATIENCE_S = 600.0


@dataclass(frozen=True)
class Workplace:
    """A tenant to ask. `ours` says that an evaluation made it; `held` that it was there before this one."""

    id: str
    slug: str
    key: str
    ours: bool
    held: bool


@asynccontextmanager
async def workplace(
    admin: TesseraClient, progress: Progress, *, name: str, slug: str | None, keep: bool, bm25_weight: float | None
) -> AsyncIterator[Workplace]:
    """Give a tenant and a key of it.

    At the end the key is revoked, and a tenant that was made here is deleted, unless `keep`. With the `slug` of a
    tenant that is there already, that tenant is given, and never deleted.

    Raises:
        InvalidRequest: (`not_an_evaluation`) `bm25_weight` would change the settings of a tenant that is somebody's.
    """
    found = await _find(admin, slug) if slug else None
    held, ours = found is not None, found is None or found["plan"] == PLAN
    wanted = {} if bm25_weight is None else {"bm25_weight": bm25_weight}
    if not ours and wanted:
        detail = f"{slug!r} was not made by an evaluation, so its BM25 weight stays as it is: leave out the weight."
        raise InvalidRequest(detail, code="not_an_evaluation")
    if found is None:
        made = slug or scratch_slug(name)
        found, _ = await admin.create_tenant(made, f"Evaluation of {name}"[:200], plan=PLAN, settings=wanted)
    elif ours and found["settings"] != wanted:
        await admin.change_tenant(found["id"], settings=wanted)
    try:
        async with _key(admin, found["id"]) as key:
            yield Workplace(found["id"], found["slug"], key, ours, held)
    finally:
        if not held and not keep:
            await _erase(admin, found["id"], progress)


@asynccontextmanager
async def _key(admin: TesseraClient, tenant_id: str) -> AsyncIterator[str]:
    made = await admin.create_key(tenant_id, _KEY_NAME)
    try:
        yield made["key"]
    finally:
        await admin.revoke_key(tenant_id, made["id"])


def scratch_slug(name: str) -> str:
    """Return a slug that nobody else has: `eval-<name>-<8 random characters>`."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    return "-".join(part for part in ("eval", plain, secrets.token_hex(4)) if part)


async def _find(admin: TesseraClient, slug: str) -> Json | None:
    async for tenant in admin.tenants():
        if tenant["slug"] == slug:
            return tenant
    return None


async def _erase(admin: TesseraClient, tenant_id: str, progress: Progress) -> None:
    progress.start("Deleting the scratch tenant", 1)
    job = await admin.delete_tenant(tenant_id)
    ended = await admin.wait_for_job(job["id"], patience_s=_ERASURE_PATIENCE_S)
    if ended["state"] != "done":
        reason = ended["error"]["detail"] if ended["error"] else ended["state"]
        raise TesseraError(f"The scratch tenant {tenant_id} could not be deleted: {reason}")
    progress.reach(1)
