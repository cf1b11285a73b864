"""A document that is replaced while it is searched for: the search finds the new version, never neither."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import pytest

from rag.pipeline import Query, Retriever
from service.app import open_state
from service.settings import Settings
from shards.filters import parse_filter
from shards.index import TenantIndexes
from tenants.context import TenantContext

if TYPE_CHECKING:
    from service.local.state import StackState
    from tests.conftest import TenantAccess

SENTENCE = "The crimson lantern burns for exactly {n} hours."
QUESTION = "How long does the crimson lantern burn?"


class Overtaken:
    """The indexes; `change` is made when both engines have named what they find, for each of the first searches."""

    def __init__(self, indexes: TenantIndexes, change: Callable[[], Awaitable[None]], times: int) -> None:
        self._indexes, self._change, self._left = indexes, change, times
        self._both = asyncio.Barrier(2)
        self._changed = asyncio.Barrier(2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._indexes, name)

    async def search_ann(self, *given: Any) -> Any:
        return await self._then(self._indexes.search_ann(*given))

    async def search_bm25(self, *given: Any, **named: Any) -> Any:
        return await self._then(self._indexes.search_bm25(*given, **named))

    async def _then(self, search: Awaitable[Any]) -> Any:
        found = await search
        if await self._both.wait() == 0 and self._left:
            self._left -= 1
            await self._change()
        await self._changed.wait()
        return found


@pytest.mark.parametrize("given", [None, {"v": {"gte": 1}}])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_document_replaced_during_a_search_is_found_as_it_is_afterwards(
    stack: StackState, tenant: TenantAccess, monkeypatch: pytest.MonkeyPatch, given: Any, times: int
) -> None:
    for name, value in stack.env.items():
        monkeypatch.setenv(name, value)
    hours = iter((11, 29, 47))

    async def upload() -> None:
        number = next(hours)
        await tenant.upload(SENTENCE.format(n=number), external_id="lamp", metadata=f'{{"v": {number}}}')

    await upload()
    async with open_state(Settings()) as state:
        retriever: Retriever = state["retriever"]
        overtaken = Overtaken(retriever.indexes, upload, times)
        searched = replace(retriever, indexes=cast("TenantIndexes", overtaken))
        query = Query(QUESTION, filter=parse_filter(given) if given else None)
        found = await searched.search(TenantContext(UUID(tenant.id), tenant.slug, "key"), query)
    assert [passage.text for passage in found.passages] == [SENTENCE.format(n=29 if times == 1 else 47)]
    assert found.degraded == []
