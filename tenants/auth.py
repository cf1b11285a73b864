"""Key -> who is calling. 401 and 403 end here."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from tenants import keys, repository
from tenants.context import AdminContext, TenantContext, TenantSettings
from tenants.db import Database
from tenants.errors import TenantSuspended, Unauthenticated, Unavailable

CACHE_S = 0.5
"""How long a process believes a verified key without asking Postgres."""
_CACHE_SIZE = 4096
_TOUCH_EVERY = timedelta(minutes=1)
_bearer = HTTPBearer(auto_error=False, description="A tenant's key, or the installation's admin key for /v1/admin.")


@dataclass(frozen=True)
class _Verified:
    digest: bytes
    context: TenantContext
    expires_at: datetime | None
    until: float


class Authenticator:
    """Verifies keys against Postgres, with a cache of half a second."""

    def __init__(self, database: Database, *, pepper: str, admin_key: str | None) -> None:
        self._database = database
        self._pepper = pepper
        self._admin_key = admin_key
        self._cache: OrderedDict[str, _Verified] = OrderedDict()
        self._touches: set[asyncio.Task[None]] = set()

    def admin(self, key: str) -> AdminContext | None:
        """Return the operator when `key` is the bootstrap key."""
        if self._admin_key and hmac.compare_digest(key.encode(), self._admin_key.encode()):
            return AdminContext(principal="bootstrap")
        return None

    async def tenant(self, key: str) -> TenantContext:
        """Return the tenant that `key` names.

        Raises:
            Unauthenticated: malformed, unknown, revoked or expired; the last three cannot be told apart.
            TenantSuspended: the tenant is suspended.
        """
        parts = keys.parse_key(key)
        digest = keys.digest(self._pepper, parts.secret)
        hit = self._cache.get(parts.id)
        if hit is None or hit.until < time.monotonic():
            hit = await self._load(parts.id, digest)
        expired = hit.expires_at is not None and hit.expires_at <= datetime.now(UTC)
        if expired or not hmac.compare_digest(hit.digest, digest):
            raise _unknown()
        return hit.context

    async def _load(self, key_id: str, digest: bytes) -> _Verified:
        until = time.monotonic() + CACHE_S  # from before it is read: what is committed later ends in time
        rows = await self._database.read_of_key(key_id, repository.KEY)
        held = repository.HeldKey(*rows[0]) if rows else None
        if held is None or held.revoked_at is not None or not hmac.compare_digest(held.digest, digest):
            self._cache.pop(key_id, None)
            raise _unknown()
        now = datetime.now(UTC)
        if held.last_used_at is None or now - held.last_used_at > _TOUCH_EVERY:
            self._touch(held.tenant_id, key_id)
        if held.state == "deleting":
            raise _unknown()
        if held.state == "suspended":
            raise TenantSuspended("This tenant is suspended; its operator can resume it.")
        settings = TenantSettings.model_validate(held.settings)
        context = TenantContext(held.tenant_id, held.slug, key_id, settings)
        verified = _Verified(held.digest, context, held.expires_at, until)
        self._cache[key_id] = verified
        self._cache.move_to_end(key_id)
        while len(self._cache) > _CACHE_SIZE:
            self._cache.popitem(last=False)
        return verified

    def _touch(self, tenant_id: UUID, key_id: str) -> None:
        """Note that a key was used, beside the request: it need not wait for a commit that nobody reads now."""

        async def touch() -> None:
            with suppress(Unavailable):
                async with self._database.tenant(tenant_id) as session, session.begin():
                    await repository.touch_key(session, tenant_id, key_id)

        task = asyncio.create_task(touch())
        self._touches.add(task)
        task.add_done_callback(self._touches.discard)


async def no_longer_believed() -> None:
    """Wait, after a commit that ends the right of a key, until no process believes it any more: who is then answered
    that it ended may rely on it, whichever process is asked next."""
    await asyncio.sleep(CACHE_S)


def _unknown() -> Unauthenticated:
    return Unauthenticated("The key is unknown, revoked or expired.", code="invalid_key")


def _key_of(credentials: HTTPAuthorizationCredentials | None) -> str:
    if credentials is None:
        raise Unauthenticated("Send the key as `Authorization: Bearer <key>`.", code="missing_key")
    return credentials.credentials


_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def _authenticator(request: Request) -> Authenticator:
    authenticator: Authenticator = request.state.authenticator
    return authenticator


async def current_tenant(request: Request, credentials: _Credentials) -> TenantContext:
    """Return the tenant of the request's key."""
    context = await _authenticator(request).tenant(_key_of(credentials))
    request.state.tenant_id = context.tenant_id
    return context


async def current_admin(request: Request, credentials: _Credentials) -> AdminContext:
    """Return the operator, or refuse: a tenant's key is not an admin key and the other way round."""
    context = _authenticator(request).admin(_key_of(credentials))
    if context is None:
        raise Unauthenticated("This is not the admin key of the installation.", code="invalid_key")
    return context


async def current_caller(request: Request, credentials: _Credentials) -> TenantContext | AdminContext:
    """Return the tenant or the operator, for the routes that both may call."""
    return _authenticator(request).admin(_key_of(credentials)) or await current_tenant(request, credentials)


CurrentTenant = Annotated[TenantContext, Depends(current_tenant)]
CurrentAdmin = Annotated[AdminContext, Depends(current_admin)]
CurrentCaller = Annotated[TenantContext | AdminContext, Depends(current_caller)]
PLATFORM = UUID(int=0)
"""Stands for the operator where a tenant's id is the key, as in remembered answers to idempotent requests."""
