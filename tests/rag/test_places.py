"""A tenant that floods the service waits for itself, and no other tenant waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest

from rag.search.places import Places
from tenants.errors import TooManyRequests

A, B = uuid4(), uuid4()


class Alone:
    """The only process of its service."""

    @asynccontextmanager
    async def taken(self, kind: str, tenant_id: UUID, most: int, *, patience_s: float = 0.0) -> AsyncIterator[None]:
        yield


async def hold(places: Places, tenant, until: asyncio.Event, order: list[int] | None = None, number: int = 0) -> None:
    async with places.taken(tenant):
        if order is not None:
            order.append(number)
        await until.wait()


async def test_a_full_tenant_waits_in_order_and_another_does_not() -> None:
    places = Places(per_tenant=2, queue=3, patience_s=5, shared=Alone())
    done, order = asyncio.Event(), []
    tasks = [asyncio.create_task(hold(places, A, done, order, number)) for number in range(5)]
    await asyncio.sleep(0.01)
    assert order == [0, 1]
    async with asyncio.timeout(0.5), places.taken(B):
        pass
    with pytest.raises(TooManyRequests, match="More than 2"):
        async with places.taken(A):
            raise AssertionError("a sixth got in")
    done.set()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]
    assert not places._here._tenants, "nothing is kept of tenants that do not search"


async def test_who_waits_too_long_is_refused_and_frees_its_place_in_the_queue() -> None:
    places = Places(per_tenant=1, queue=1, patience_s=0.05, shared=Alone())
    done = asyncio.Event()
    first = asyncio.create_task(hold(places, A, done))
    await asyncio.sleep(0.01)
    for _ in range(2):
        with pytest.raises(TooManyRequests):
            await hold(places, A, done)
    done.set()
    await first
    async with places.taken(A):
        pass


async def test_a_search_that_is_cancelled_or_fails_gives_its_place_back() -> None:
    places = Places(per_tenant=1, queue=5, patience_s=5, shared=Alone())
    task = asyncio.create_task(hold(places, A, asyncio.Event()))
    waiting = asyncio.create_task(hold(places, A, asyncio.Event()))
    await asyncio.sleep(0.01)
    for one in (waiting, task):
        one.cancel()
    await asyncio.gather(task, waiting, return_exceptions=True)
    with pytest.raises(ZeroDivisionError):
        async with places.taken(A):
            raise ZeroDivisionError
    async with asyncio.timeout(0.5), places.taken(A):
        pass
    assert not places._here._tenants
