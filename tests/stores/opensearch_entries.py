"""Entries for OpenSearch, and where they lie by what the server itself says."""

from __future__ import annotations

from collections import Counter
from uuid import UUID, uuid4

from opensearchpy import AsyncOpenSearch

from shards.lexical import ChunkText
from shards.opensearch import OpenSearchLexical
from shards.settings import LexicalSettings


def rows_of(number: int, word: str = "harbour") -> list[ChunkText]:
    return [ChunkText(uuid4(), at // 3 + 1, f"Note {at}", f"the {word} of number {at}") for at in range(number)]


async def found(store: OpenSearchLexical, index: str, text: str = "harbour") -> list[UUID]:
    return [hit.chunk_id for hit in await store.search(index, text, k=1000, scope=None)]


async def lying(settings: LexicalSettings) -> Counter[str]:
    """How many entries each physical index holds, the server asked itself; those that hold none are left out."""
    async with AsyncOpenSearch(hosts=[settings.url]) as client:
        await client.indices.refresh(index=f"{settings.prefix}*")
        names = [row["index"] for row in await client.cat.indices(index=f"{settings.prefix}*", format="json")]
        counts = {name: (await client.count(index=name))["count"] for name in names}
    return Counter({name.removeprefix(settings.prefix): count for name, count in counts.items() if count})


async def own_of(settings: LexicalSettings, index: str) -> list[str]:
    async with AsyncOpenSearch(hosts=[settings.url]) as client:
        rows = await client.cat.indices(index=f"{settings.prefix}{index}-own-*", format="json")
    return [row["index"] for row in rows]


async def aliases(settings: LexicalSettings) -> set[str]:
    """All aliases of the installation, without its prefix."""
    async with AsyncOpenSearch(hosts=[settings.url]) as client:
        known = await client.indices.get_alias(index=f"{settings.prefix}*")
    return {name.removeprefix(settings.prefix) for about in known.values() for name in about["aliases"]}
