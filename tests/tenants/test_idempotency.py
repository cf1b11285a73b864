"""`Idempotency-Key`: what a repeat is told when clients leave, answers are large or requests take long."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import text

from rag.withdrawal import is_current
from service import problems
from tenants import idempotency
from tenants.auth import PLATFORM, Authenticator
from tenants.idempotency import IdempotentRoute, streams_ended

if TYPE_CHECKING:
    from sqlalchemy import TextClause
    from starlette.types import Message

    from tenants.db import Database
    from tests.conftest import TenantAccess

ADMIN_KEY = "k" * 32
_AGE = text("UPDATE idempotent_answers SET created_at = now() - interval '3 minutes' WHERE key = :key RETURNING 1")
_YOUNG = text("SELECT created_at > now() - interval '1 minute' FROM idempotent_answers WHERE key = :key")


@dataclass(frozen=True)
class Told:
    """What one request was answered."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def code(self) -> str:
        """Of the problem, "" without one."""
        return str(json.loads(self.body)["code"]) if self.status >= 400 else ""

    @property
    def replayed(self) -> bool:
        """Whether it is an earlier answer."""
        return "idempotency-replayed" in self.headers


@dataclass
class Site:
    """An application whose one route does as it is told: waits, fails, streams, answers at length."""

    database: Database
    key: str = field(default_factory=lambda: str(uuid4()))
    done: int = 0
    """How often it was asked for a whole answer, or was halfway through one."""
    go_on: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    """What a body waits for that names it as `wait`."""

    def __post_init__(self) -> None:
        self.app, router = FastAPI(), APIRouter(route_class=IdempotentRoute, lifespan=streams_ended)
        router.add_api_route("/ask", self.answer, methods=["POST"], response_class=Response)
        self.app.include_router(router)
        problems.install(self.app)
        authenticator = Authenticator(self.database, pepper="p" * 32, admin_key=ADMIN_KEY)
        self.state = {"database": self.database, "authenticator": authenticator, "is_current": is_current}

    async def answer(self, request: Request) -> Response:
        """The route."""
        body = await request.json()
        if body.get("stream"):
            return StreamingResponse(self.events(body), media_type="text/event-stream")
        self.done += 1
        number = self.done
        if body.get("wait"):
            await self.go_on[body["wait"]].wait()
        return Response(f"{number}" + "x" * body.get("chars", 0), body.get("status", 200), media_type="text/plain")

    async def events(self, body: dict[str, Any]) -> AsyncIterator[str]:
        """What it streams."""
        self.done += 1
        yield "event: retrieval\ndata: " + "x" * body.get("chars", 0) + "\n\n"
        if body.get("wait"):
            await self.go_on[body["wait"]].wait()
        await asyncio.sleep(0.02)
        yield "event: delta\ndata: half\n\n"
        yield f"event: done\ndata: {self.done}\n\n"

    async def ask(self, *, leave_on: str = "", **body: Any) -> Told:
        """Ask as uvicorn asks; the client leaves when it has read `leave_on`."""
        asked: list[Message] = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
        left, sent = asyncio.Event(), []

        async def receive() -> Message:
            if asked:
                return asked.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)
            if leave_on and leave_on.encode() in message.get("body", b""):
                left.set()

        headers = {"authorization": f"Bearer {ADMIN_KEY}", "idempotency-key": self.key}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "method": "POST",
            "path": "/ask",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "state": {**self.state, "request_id": "r"},
        }
        async with asyncio.timeout(10):
            await self.app(scope, receive, send)
        given = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Told(sent[0]["status"], given, b"".join(one.get("body", b"") for one in sent[1:]).decode())

    async def settled(self, **body: Any) -> Told:
        """Ask until no request is under way."""
        for _ in range(200):
            told = await self.ask(**body)
            if told.code != "idempotency_in_flight":
                return told
            await asyncio.sleep(0.02)
        raise AssertionError("The key is still taken.")

    async def begun(self, times: int = 1) -> None:
        """Wait until the route was asked so often."""
        async with asyncio.timeout(10):
            while self.done < times:
                await asyncio.sleep(0.01)

    async def row(self, statement: TextClause) -> Any:
        """Change the remembered answer; return what the statement returns of it."""
        async with self.database.tenant(PLATFORM) as session, session.begin():
            return await session.scalar(statement, {"key": self.key})


@pytest.fixture
async def site(app_database: Database) -> AsyncIterator[Site]:
    made = Site(app_database)
    yield made
    await made.row(text("DELETE FROM idempotent_answers WHERE key = :key RETURNING 1"))


async def test_a_client_that_leaves_when_it_has_all_finds_it_again(site: Site) -> None:
    first = await site.ask(stream=True, leave_on="event: done")
    again = await site.ask(stream=True)
    assert (again.status, again.replayed, again.body) == (200, True, first.body)
    assert site.done == 1


@pytest.mark.parametrize("moment", ["at once", "after a while", "at the end of the process"])
async def test_a_client_that_leaves_halfway_may_ask_again(site: Site, moment: str) -> None:
    body: dict[str, Any] = {"stream": True, "wait": "" if moment == "at once" else "model"}
    async with AsyncExitStack() as running:
        await running.enter_async_context(site.app.router.lifespan_context(site.app))
        first = await site.ask(**body, leave_on="event: retrieval")
        assert "event: delta" not in first.body
        if moment != "at once":
            assert (await site.ask(**body)).code == "idempotency_in_flight"
        if moment == "at the end of the process":
            await running.aclose()
        site.go_on["model"].set()
        again = await site.settled(**body)
        assert (again.status, again.replayed, site.done) == (200, False, 2)
        assert (await site.ask(**body)).body == again.body


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("chars", "times"), [(1000, 1), (idempotency._MAX_REMEMBERED_BYTES, 2)])
async def test_only_answers_of_some_size_are_remembered(site: Site, stream: bool, chars: int, times: int) -> None:
    first = await site.ask(stream=stream, chars=chars)
    again = await site.ask(stream=stream, chars=chars)
    assert (len(first.body) > chars, again.status, site.done) == (True, 200, times)
    assert again.replayed is (times == 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_takes_long_keeps_its_key(
    site: Site, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(idempotency, "_RENEW_S", 0.01)
    body: dict[str, Any] = {"stream": stream, "wait": "model"}
    long = asyncio.create_task(site.ask(**body))
    await site.begun()
    await site.row(_AGE)
    async with asyncio.timeout(10):
        while not await site.row(_YOUNG):
            await asyncio.sleep(0.01)
    assert (await site.ask(**body)).code == "idempotency_in_flight"
    site.go_on["model"].set()
    first = await long
    again = await site.ask(**body)
    assert (again.replayed, again.body) == (True, first.body)


@pytest.mark.parametrize("status", [200, 404])
async def test_a_request_that_lost_its_key_changes_nothing_of_the_next(site: Site, status: int) -> None:
    lost = asyncio.create_task(site.ask(wait="lost", status=status))
    await site.begun()
    await site.row(_AGE)
    own = asyncio.create_task(site.ask(wait="own"))
    await site.begun(2)
    site.go_on["lost"].set()
    assert ((await lost).status, (await lost).body) == (status, "1")
    assert (await site.ask(wait="own")).code == "idempotency_in_flight"
    site.go_on["own"].set()
    assert (await own).body == "2"
    again = await site.ask(wait="own")
    assert (again.replayed, again.body) == (True, "2")
    assert (await site.ask(wait="lost", status=status)).code == "idempotency_key_reused"


async def test_a_chat_whose_client_leaves_at_done_is_one_exchange(tenant: TenantAccess) -> None:
    await tenant.upload("The vault of the lighthouse opens with the word heliotrope.")
    headers, body = {"Idempotency-Key": str(uuid4())}, {"message": "Which word opens the vault?"}
    seen = ""
    async with tenant.client.stream("POST", "/v1/chat", json=body, headers=headers) as answer:
        async for part in answer.aiter_text():
            seen += part
            if "event: done" in seen:
                break
    again = await tenant.client.post("/v1/chat", json=body, headers=headers)
    assert (again.status_code, again.headers.get("idempotency-replayed")) == (200, "true"), again.text
    assert again.text.startswith(seen)
    assert len((await tenant.client.get("/v1/conversations")).json()["items"]) == 1
