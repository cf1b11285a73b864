"""Requests by a filter may read all documents of a tenant: so many run at once, and nothing else waits for them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
from fastapi import FastAPI

from ingestion import api, versions_api
from service import problems
from tenants.cursor import CursorSigner
from tenants.db import Database
from tenants.local_places import LocalPlaces

ONE, TWO = uuid4(), uuid4()
FILTER = {"format": {"eq": "txt"}}
LISTED = {"filter": json.dumps(FILTER)}


@dataclass
class Door:
    """The routes of documents; who asks is named by the key."""

    database: Database
    places: LocalPlaces
    app: FastAPI = field(default_factory=FastAPI)

    def __post_init__(self) -> None:
        for router in (versions_api.router, api.router):
            self.app.include_router(router)
        problems.install(self.app)

    def admin(self, key: str) -> None:
        return None

    async def tenant(self, key: str) -> SimpleNamespace:
        return SimpleNamespace(tenant_id=UUID(key))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        state = {"authenticator": self, "database": self.database, "filter_places": self.places}
        await self.app({**scope, "state": {**state, "cursors": CursorSigner("x" * 32)}}, receive, send)


async def test_one_filter_too_many_waits_for_the_others_of_its_tenant_and_nothing_else_does(
    app_database: Database,
) -> None:
    places = LocalPlaces(1, 0.05, "filters")
    transport = httpx.ASGITransport(Door(app_database, places))
    async with httpx.AsyncClient(transport=transport, base_url="http://tessera/v1") as client:

        async def status(tenant: UUID, method: str, path: str, **sent: Any) -> int:
            headers = {"Authorization": f"Bearer {tenant}"}
            return (await client.request(method, path, headers=headers, **sent)).status_code

        async with places.taken(ONE):
            assert await status(ONE, "GET", "/documents", params=LISTED) == 429
            assert await status(ONE, "POST", "/documents/delete", json={"filter": FILTER}) == 429
            assert await status(ONE, "GET", "/documents") == 200
            assert await status(ONE, "POST", "/documents/delete", json={"external_ids": ["none"]}) == 202
            assert await status(TWO, "GET", "/documents", params=LISTED) == 200
        assert await status(ONE, "GET", "/documents", params=LISTED) == 200
        assert await status(ONE, "POST", "/documents/delete", json={"filter": FILTER}) == 202
