"""`Idempotency-Key` on every POST: the first answer is remembered for a day and replayed.

The row is claimed in Postgres before the work and filled after it, so a concurrent repeat is told to wait (409) and a
repeat with another body is refused (422). Refusals of the request itself (401, 403, 413, 415, 422) and failures of the
service (5xx) are not remembered: the same key may then be used again. An answer with a secret is not kept either: a
repeat is told that it was given (409).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import UploadFile

from tenants.auth import PLATFORM, Authenticator
from tenants.db import Database
from tenants.errors import Conflict, FieldError, InvalidRequest, Unavailable
from tenants.state import database_of

_MAX_KEY_CHARS = 255
_MAX_REMEMBERED_BYTES = 1024 * 1024
_MAX_PART_BYTES = 16 * 1024 * 1024
"""Of a form's text part; the whole body is bounded before, and the route checks its parts itself."""
_CLAIM = text(
    "INSERT INTO idempotent_answers (tenant_id, route, key, fingerprint) VALUES (:tenant, :route, :key, :print)"
    " ON CONFLICT (tenant_id, route, key) DO UPDATE SET fingerprint = :print, status = NULL, body = NULL,"
    " created_at = now() WHERE idempotent_answers.created_at < now() - interval '24 hours'"
    " OR (idempotent_answers.status IS NULL AND idempotent_answers.created_at < now() - interval '2 minutes')"
    " RETURNING 1"
)
_READ = text(
    "SELECT fingerprint, status, body FROM idempotent_answers"
    " WHERE tenant_id = :tenant AND route = :route AND key = :key"
)
_FILL = text(
    "UPDATE idempotent_answers SET status = :status, body = jsonb_build_object('text', CAST(:body AS text),"
    " 'media_type', CAST(:media_type AS text)) WHERE tenant_id = :tenant AND route = :route AND key = :key"
)
_FORGET = text("DELETE FROM idempotent_answers WHERE tenant_id = :tenant AND route = :route AND key = :key")

_SHOWN_ONCE = 409
"""Stands in the row instead of an answer that held a secret."""
_WITHDRAWN = 410
"""Stands in the row instead of an answer that quoted what was deleted since."""
_WITHDRAW = text(
    "UPDATE idempotent_answers a SET status = :status, body = jsonb_build_object('text', '', 'media_type', '')"
    " FROM answer_quotes q WHERE q.tenant_id = :tenant AND q.document_id = :document"
    " AND a.tenant_id = q.tenant_id AND a.route = q.route AND a.key = q.key"
)
_QUOTED = text(
    "SELECT document_id, version FROM answer_quotes WHERE tenant_id = :tenant AND route = :route AND key = :key"
)
_FORGET_DOCUMENT = text("DELETE FROM answer_quotes WHERE tenant_id = :tenant AND document_id = :document")
_FORGET_QUOTES = text("DELETE FROM answer_quotes WHERE tenant_id = :tenant AND route = :route AND key = :key")
_QUOTE = text(
    "INSERT INTO answer_quotes (tenant_id, document_id, route, key, version) SELECT a.tenant_id, q.document, a.route,"
    " a.key, q.version FROM idempotent_answers a, unnest(CAST(:documents AS uuid[]), CAST(:versions AS int[])) q"
    " (document, version) WHERE a.tenant_id = :tenant AND a.route = :route AND a.key = :key"
)

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
IsCurrent = Callable[[AsyncSession, UUID, Mapping[UUID, int]], Awaitable[bool]]
"""Says in a session of the tenant whether these versions of documents are served still; lies in
`request.state.is_current`."""


class IdempotentRoute(APIRoute):
    """A route that honours `Idempotency-Key` when it is a POST."""

    def get_route_handler(self) -> Handler:
        """Wrap FastAPI's handler."""
        handler = super().get_route_handler()
        if "POST" not in (self.methods or set()):
            return handler
        route = f"POST {self.path}"

        async def idempotent(request: Request) -> Response:
            key = request.headers.get("idempotency-key")
            if key is None:
                return await handler(request)
            if not 1 <= len(key) <= _MAX_KEY_CHARS:
                raise InvalidRequest(
                    f"Idempotency-Key takes 1 to {_MAX_KEY_CHARS} characters.",
                    fields=(FieldError("headers.Idempotency-Key", "wrong length"),),
                )
            return await _once(request, handler, f"{route}?{request.url.path}", key)

        return idempotent


async def _once(request: Request, handler: Handler, route: str, key: str) -> Response:
    tenant_id = await caller_of(request)
    if tenant_id is None:
        return await handler(request)
    database = database_of(request)
    row = {"tenant": tenant_id, "route": route, "key": key}
    fingerprint = await _fingerprint(request)
    async with database.tenant(tenant_id) as session, session.begin():
        claimed = (await session.execute(_CLAIM, {**row, "print": fingerprint})).first()
        earlier = None if claimed else (await session.execute(_READ, row)).first()
        current = True
        if earlier is not None and earlier.body is not None:
            is_current: IsCurrent = request.state.is_current
            quoted = {one.document_id: one.version for one in await session.execute(_QUOTED, row)}
            current = await is_current(session, tenant_id, quoted)
    if earlier is not None:
        status = earlier.status if current else _WITHDRAWN
        return _replay(earlier.fingerprint, fingerprint, status, earlier.body)
    try:
        response = await handler(request)
    except BaseException:
        # Whatever it was, also a body that FastAPI refuses or a defect of ours: the same key may be used again.
        with suppress(Unavailable):
            await _forget(database, tenant_id, row)
        raise
    if isinstance(response, StreamingResponse):
        response.body_iterator = _recorded(request, response, response.body_iterator, database, tenant_id, row)
    elif getattr(request.state, "shown_once", False):
        await _fill(database, tenant_id, row, _SHOWN_ONCE, b"", None)
    elif response.status_code < 400:
        answer = (response.status_code, bytes(response.body), response.media_type)
        await _fill(database, tenant_id, row, *answer, getattr(request.state, "quoted", None))
    else:
        await _forget(database, tenant_id, row)
    return response


async def caller_of(request: Request) -> UUID | None:
    """Return whose request this is, `PLATFORM` being the operator; None without a key, which the handler refuses."""
    authenticator: Authenticator = request.state.authenticator
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    if authenticator.admin(key) is not None:
        return PLATFORM
    return (await authenticator.tenant(key)).tenant_id


async def _fingerprint(request: Request) -> bytes:
    digest = hashlib.sha256()
    if request.headers.get("content-type", "").startswith("multipart/"):
        for name, value in sorted(
            (await request.form(max_part_size=_MAX_PART_BYTES)).multi_items(), key=lambda item: item[0]
        ):
            digest.update(name.encode() + b"\0")
            if isinstance(value, UploadFile):
                digest.update((value.filename or "").encode() + b"\0")
                while block := await value.read(1 << 20):
                    digest.update(block)
                await value.seek(0)
            else:
                digest.update(value.encode())
    else:
        digest.update(await request.body())
    return digest.digest()


def _replay(first: bytes, now: bytes, status: int | None, body: dict[str, Any] | None) -> Response:
    if first != now:
        raise InvalidRequest("This Idempotency-Key was used with another request body.", code="idempotency_key_reused")
    if status is None or body is None:
        raise Conflict("A request with this Idempotency-Key is under way.", code="idempotency_in_flight")
    if status == _SHOWN_ONCE:
        raise Conflict("This was done, and its answer was shown once; it is not kept.", code="shown_once")
    if status == _WITHDRAWN:
        raise Conflict(
            "The answer quoted a document that was deleted or replaced since; ask again with another Idempotency-Key.",
            code="answer_withdrawn",
        )
    return Response(body["text"], status, media_type=body["media_type"], headers={"Idempotency-Replayed": "true"})


async def withdraw(session: AsyncSession, tenant_id: UUID, document_id: UUID) -> int:
    """Remove the remembered answers that quote a document, in the caller's transaction; return how many. Their keys
    stay used."""
    values = {"tenant": tenant_id, "document": document_id}
    result = await session.execute(_WITHDRAW, {**values, "status": _WITHDRAWN})
    await session.execute(_FORGET_DOCUMENT, values)
    return int(getattr(result, "rowcount", 0))


def quote(request: Request, documents: Mapping[UUID, int]) -> None:
    """Note which version of which documents the answer quotes, so that it is withdrawn with them."""
    request.state.quoted = {**getattr(request.state, "quoted", {}), **documents}


async def _recorded(
    request: Request,
    response: StreamingResponse,
    blocks: AsyncIterable[Any],
    database: Database,
    tenant_id: UUID,
    row: dict[str, Any],
) -> AsyncIterator[bytes]:
    whole, complete = bytearray(), False
    try:
        async for block in blocks:
            piece = block.encode() if isinstance(block, str) else bytes(block)
            whole += piece[: max(0, _MAX_REMEMBERED_BYTES + 1 - len(whole))]
            yield piece
        complete = len(whole) <= _MAX_REMEMBERED_BYTES and b"event: error" not in whole
    finally:
        if complete:
            answer = (response.status_code, bytes(whole), response.media_type)
            await _fill(database, tenant_id, row, *answer, getattr(request.state, "quoted", None))
        else:
            await _forget(database, tenant_id, row)


async def _fill(
    database: Database,
    tenant_id: UUID,
    row: dict[str, Any],
    status: int,
    body: bytes,
    media_type: str | None,
    quoted: Mapping[UUID, int] | None = None,
) -> None:
    values = {**row, "status": status, "body": body.decode(), "media_type": media_type or "application/json"}
    async with database.tenant(tenant_id) as session, session.begin():
        await session.execute(_FILL, values)
        if quoted is not None:
            await session.execute(_FORGET_QUOTES, row)
            versions = {"documents": list(quoted), "versions": list(quoted.values())}
            await session.execute(_QUOTE, {**row, **versions})


async def _forget(database: Database, tenant_id: UUID, row: dict[str, Any]) -> None:
    async with database.tenant(tenant_id) as session, session.begin():
        await session.execute(_FORGET, row)
