"""Requests by a filter may read all documents of a tenant: so many run at once, and nothing else waits for them."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import httpx

from ingestion import api, versions_api
from tenants.cursor import CursorSigner
from tenants.db import Database
from tenants.local_places import LocalPlaces
from tests.ingestion.door import Door

ONE, TWO = uuid4(), uuid4()
FILTER = {"format": {"eq": "txt"}}
LISTED = {"filter": json.dumps(FILTER)}


async def test_one_filter_too_many_waits_for_the_others_of_its_tenant_and_nothing_else_does(
    app_database: Database,
) -> None:
    places = LocalPlaces(1, 0.05, "filters")
    state = {"database": app_database, "filter_places": places, "cursors": CursorSigner("x" * 32)}
    transport = httpx.ASGITransport(Door(versions_api.router, api.router, **state))
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
