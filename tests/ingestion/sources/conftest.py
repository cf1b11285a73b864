"""A site, a folder that the operator allows, and sources of the running stack."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.conftest import FOLDERS
from tests.ingestion.sources.site import Site, site_on

if TYPE_CHECKING:
    from service.local.state import StackState
    from tests.conftest import TenantAccess

Json = dict[str, Any]


@dataclass(frozen=True)
class Sources:
    """What a tenant does with its sources."""

    access: TenantAccess

    async def add(self, kind: str, config: Json, **fields: Any) -> Json:
        """Register a source."""
        body = {"kind": kind, "name": f"{kind}-{uuid4().hex[:6]}", "config": config, **fields}
        answer = await self.access.client.post("/v1/sources", json=body)
        assert answer.status_code == 201, answer.text
        made: Json = answer.json()
        return made

    async def run(self, source: Json) -> Json:
        """Run a source, wait for the run and for what it queued, and return the run."""
        answer = await self.access.client.post(f"/v1/sources/{source['id']}/run")
        assert answer.status_code == 202, answer.text
        await self.access.job(answer.json()["job"]["id"])
        run: Json = (await self.runs(source))[0]
        await self.settled()
        return run

    async def runs(self, source: Json) -> list[Json]:
        """Return the history."""
        items: list[Json] = (await self.access.client.get(f"/v1/sources/{source['id']}/runs")).json()["items"]
        return items

    async def settled(self) -> None:
        """Wait until no job of the tenant is under way."""
        for _ in range(600):
            jobs = (await self.access.client.get("/v1/jobs", params={"limit": 100})).json()["items"]
            if all(job["state"] in ("done", "failed", "cancelled") for job in jobs):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(jobs)

    async def documents(self) -> dict[str, Json]:
        """Return the tenant's documents by title."""
        answer = await self.access.client.get("/v1/documents", params={"limit": 100})
        return {item["title"]: item for item in answer.json()["items"]}

    async def found(self, query: str) -> str:
        """Return the text of every hit."""
        return "\n".join(hit["text"] for hit in await self.access.search(query, k=20))


@pytest.fixture
def site() -> Iterator[Site]:
    """A web site on loopback."""
    with site_on() as served:
        yield served


@pytest.fixture
def sources(tenant: TenantAccess) -> Sources:
    """The sources of a fresh tenant."""
    return Sources(tenant)


@pytest.fixture
def folder(stack: StackState) -> Callable[[], Path]:
    """Makes folders that the operator allows."""
    root = Path(stack.env["TESSERA_DATA_DIR"]).parent / FOLDERS

    def make() -> Path:
        made = root / uuid4().hex
        made.mkdir(parents=True)
        return made

    return make
