"""`Idempotency-Key` on every POST: the first answer is remembered for a day and replayed.

The row is claimed in Postgres before the work and filled after it, so a concurrent repeat is told to wait (409) and a
repeat with another body is refused (422). The claim is renewed while the work goes on; that of a process which died may
be taken over. Refusals of the request itself (401, 403, 413, 415, 422), failures of the service (5xx), answers of more
than 1 MiB and streams that did not come to their event `done` are not remembered: the same key may then be used again.
An answer with a secret is not kept either: a repeat is told that it was given (409).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast
from urllib import parse
from uuid import UUID

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import UploadFile
from uuid_utils.compat import uuid7

from tenants.auth import PLATFORM, Authenticator
from tenants.db import Database
from tenants.errors import Conflict, FieldError, InvalidRequest, Unavailable
from tenants.state import database_of

_MAX_KEY_CHARS = 255
_MAX_REMEMBERED_BYTES = 1024 * 1024
_MAX_PART_BYTES = 16 * 1024 * 1024
"""Of a form's text part; the whole body is bounded before, and the route checks its parts itself."""
_DONE = b"event: done\n"
"""What the last event of a whole stream begins with."""
_RENEW_S = 30.0
"""A fraction of the two minutes after which a claim that is not renewed may be taken over."""
_LEAVE_S = 2.0
"""Longest that the process waits at its end for streams whose clients have left."""
_CLAIM = text(
    "INSERT INTO idempotent_answers (tenant_id, route, key, fingerprint, body)"
    " VALUES (:tenant, :route, :key, :print, jsonb_build_object('claim', CAST(:claim AS text)))"
    " ON CONFLICT (tenant_id, route, key) DO UPDATE SET fingerprint = excluded.fingerprint, status = NULL,"
    " body = excluded.body, created_at = now()"
    " WHERE idempotent_answers.created_at < now() - interval '24 hours'"
    " OR (idempotent_answers.status IS NULL AND idempotent_answers.created_at < now() - interval '2 minutes')"
    " RETURNING 1"
)
_READ = text(
    "SELECT fingerprint, status, body FROM idempotent_answers"
    " WHERE tenant_id = :tenant AND route = :route AND key = :key"
)
_RENEW = text(
    "UPDATE idempotent_answers SET created_at = now()"
    " WHERE tenant_id = :tenant AND route = :route AND key = :key AND body ->> 'claim' = :claim"
)
_FILL = text(
    "UPDATE idempotent_answers SET status = :status, body = jsonb_build_object('text', CAST(:body AS text),"
    " 'media_type', CAST(:media_type AS text))"
    " WHERE tenant_id = :tenant AND route = :route AND key = :key AND body ->> 'claim' = :claim RETURNING 1"
)
_FORGET = text(
    "DELETE FROM idempotent_answers"
    " WHERE tenant_id = :tenant AND route = :route AND key = :key AND body ->> 'claim' = :claim"
)

_SHOWN_ONCE = 409
"""Stands in the row instead of an answer that held a secret."""
_WITHDRAWN = 410
"""Stands in the row instead of an answer that quoted what was deleted since."""
_WITHDRAW = text(
    "UPDATE idempotent_answers a SET status = :status, body = jsonb_build_object('text', '', 'media_type', '')"
    " FROM answer_quotes q WHERE q.tenant_id = :tenant AND q.document_id = :document"
    " AND a.tenant_id = q.tenant_id AND a.route = q.route AND a.key = q.key AND a.status IS NOT NULL"
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
            return await _once(request, handler, f"{route}?{parse.quote(request.url.path)}", key)

        return idempotent


async def _once(request: Request, handler: Handler, route: str, key: str) -> Response:
    tenant_id = await caller_of(request)
    if tenant_id is None:
        return await handler(request)
    row = {"tenant": tenant_id, "route": route, "key": key, "claim": str(uuid7())}
    claim = Claim(database_of(request), row)
    fingerprint = await _fingerprint(request)
    async with claim.session() as session:
        claimed = (await session.execute(_CLAIM, {**row, "print": fingerprint})).first()
        earlier = None if claimed else (await session.execute(_READ, row)).first()
        current = True
        if earlier is not None and earlier.status is not None:
            is_current: IsCurrent = request.state.is_current
            quoted = {one.document_id: one.version for one in await session.execute(_QUOTED, row)}
            current = await is_current(session, tenant_id, quoted)
    if earlier is not None:
        status = earlier.status if current else _WITHDRAWN
        return _replay(earlier.fingerprint, fingerprint, status, earlier.body)
    try:
        async with claim.held():
            response = await handler(request)
    except BaseException:
        # Whatever it was, also a body that FastAPI refuses or a defect of ours: the same key may be used again.
        with suppress(Unavailable):
            await claim.forget()
        raise
    if isinstance(response, StreamingResponse):
        events = cast("AsyncGenerator[str | bytes, None]", response.body_iterator)
        response.body_iterator = _Stream(claim, request, response, events).begin()
    elif getattr(request.state, "shown_once", False):
        await claim.fill(_SHOWN_ONCE, b"", None)
    elif response.status_code < 400:
        await claim.remember(request, response, bytes(response.body))
    else:
        await claim.forget()
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
        try:
            form = await request.form(max_part_size=_MAX_PART_BYTES)
        except (UnicodeError, LookupError) as error:
            raise InvalidRequest("Send the form in UTF-8.") from error
        for name, value in sorted(form.multi_items(), key=lambda item: item[0]):
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


@asynccontextmanager
async def streams_ended(_app: object) -> AsyncIterator[None]:
    """Lifespan of a router with streams: waits a moment for those whose clients have left, then gives them up."""
    yield
    if _streams:
        await asyncio.wait(_streams, timeout=_LEAVE_S)
    for one in _streams:
        one.cancel()
    await asyncio.gather(*_streams, return_exceptions=True)


@dataclass(frozen=True)
class Claim:
    """The key while one request has it; after another took it over, nothing here touches its row."""

    database: Database
    row: dict[str, Any]
    """Values of the statements: `tenant`, `route`, `key` and `claim`, which names the request."""

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction of the tenant, committed at the end."""
        async with self.database.tenant(self.row["tenant"]) as session, session.begin():
            yield session

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Keep others from taking the key over meanwhile."""
        renewing = asyncio.create_task(self._renewed())
        try:
            yield
        finally:
            renewing.cancel()

    async def _renewed(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_S)
            with suppress(Unavailable):
                async with self.session() as session:
                    await session.execute(_RENEW, self.row)

    async def remember(self, request: Request, response: Response, body: bytes) -> None:
        """Keep an answer with what it quotes; one that is too large is forgotten."""
        if len(body) > _MAX_REMEMBERED_BYTES:
            await self.forget()
        else:
            quoted = getattr(request.state, "quoted", None)
            await self.fill(response.status_code, body, response.media_type, quoted)

    async def fill(
        self, status: int, body: bytes, media_type: str | None, quoted: Mapping[UUID, int] | None = None
    ) -> None:
        """Write the answer into the row, and which documents it quotes."""
        values = {**self.row, "status": status, "body": body.decode(), "media_type": media_type or "application/json"}
        async with self.session() as session:
            filled = (await session.execute(_FILL, values)).first()
            if filled is not None and quoted is not None:
                await session.execute(_FORGET_QUOTES, self.row)
                versions = {"documents": list(quoted), "versions": list(quoted.values())}
                await session.execute(_QUOTE, {**self.row, **versions})

    async def forget(self) -> None:
        """Free the key."""
        async with self.session() as session:
            await session.execute(_FORGET, self.row)


_streams: set[asyncio.Task[None]] = set()
"""What makes streamed answers at this moment."""


@dataclass
class _Stream:
    """A streamed answer, made by a task of its own that fills or frees the row.

    When the client leaves, Starlette cancels the stream by anyio, at every turn of the loop: nothing can be waited for
    there. The task is not cancelled but ends at its next event, so never halfway through what `done` tells of; the row
    is filled before the client is sent `done`.
    """

    claim: Claim
    request: Request
    response: StreamingResponse
    events: AsyncGenerator[str | bytes, None]
    left: bool = False
    """Whether nobody reads any more."""
    pieces: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    """Made and not yet read; None is the end."""

    def begin(self) -> AsyncIterator[bytes]:
        """Start the task; return what the client is to be sent."""
        making = asyncio.create_task(self._made())
        _streams.add(making)
        making.add_done_callback(self._ended)
        return self._read(making)

    def _ended(self, making: asyncio.Task[None]) -> None:
        _streams.discard(making)
        self.pieces.put_nowait(None)

    async def _read(self, making: asyncio.Task[None]) -> AsyncIterator[bytes]:
        try:
            while (piece := await self.pieces.get()) is not None:
                yield piece
            making.result()
        finally:
            self.left = True

    async def _made(self) -> None:
        whole, done = bytearray(), False
        try:
            async with self.claim.held(), aclosing(self.events):
                async for event in self.events:
                    piece = event.encode() if isinstance(event, str) else event
                    whole += piece[: max(0, _MAX_REMEMBERED_BYTES + 1 - len(whole))]
                    if piece.startswith(_DONE):
                        done = True
                        with suppress(Unavailable):
                            await self.claim.remember(self.request, self.response, bytes(whole))
                    elif self.left:
                        break
                    self.pieces.put_nowait(piece)
        finally:
            if not done:
                with suppress(Unavailable):
                    await self.claim.forget()
