"""A shard of which no node has a copy at the moment: what it holds is neither counted as gone nor moved without it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from uuid import uuid4

from opensearchpy import AsyncOpenSearch

from shards.names import lexical_name
from shards.opensearch import OpenSearchLexical
from shards.opensearch_mapping import index_body
from shards.opensearch_query import entry
from shards.settings import LexicalSettings
from tenants.errors import Unavailable
from tests.stores.opensearch_entries import found, rows_of

FEW = "index.routing.allocation.total_shards_per_node"


async def test_nothing_is_said_of_an_index_that_lacks_a_shard(
    opensearch: OpenSearchLexical, opensearch_settings: LexicalSettings
) -> None:
    """One of two shards finds no node: the server itself counts what the other has and fails nothing."""
    index, rows = lexical_name(uuid4()), rows_of(30)
    alias = f"{opensearch_settings.prefix}{index}"
    client, own = AsyncOpenSearch(hosts=[opensearch_settings.url], timeout=60), f"{alias}-own-00000000"
    body = index_body(shards=2, replicas=0)
    body["settings"] |= {FEW: 1}
    await client.indices.create(index=own, body=body, params={"wait_for_active_shards": "0"})
    await client.indices.put_alias(index=own, name=alias)
    lines = [line for row in rows for line in ({"index": {"_id": f"{index}:{row.chunk_id.hex}"}}, entry(index, row))]
    # The client takes a parameter of this name for its own.
    await client.transport.perform_request(
        "POST", f"/{alias}/_bulk?timeout=1s&refresh=true", body="".join(json.dumps(line) + "\n" for line in lines)
    )
    counted = (await client.count(index=alias))["count"]
    assert 0 < counted < 30
    store = OpenSearchLexical(opensearch_settings.model_copy(update={"timeout_s": 3}))  # some wait for the shard
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "count": lambda: store.count(index),
        "count_versions": lambda: store.count_versions(index, [1, 2]),
        "search": lambda: store.search(index, "harbour", k=50, scope=None),
        "held": lambda: store.held(index, [rows[0].chunk_id]),
        "lacking": lambda: store.lacking(index, rows),
        "entries": lambda: anext(store.entries(index)),
        "delete_versions": lambda: store.delete_versions(index, [1]),
        "place": lambda: store.place(index, shared=True),
        "indexes": lambda: store.indexes(),
    }
    passed, codes = set(), set()
    for name, call in calls.items():
        try:
            await call()
            passed.add(name)
        except Unavailable as error:
            codes.add(error.code)
    assert passed == {"indexes"}, "which is known from the names alone"
    assert codes == {"lexical_unavailable"}
    await store.aclose()
    await client.indices.put_settings(index=own, body={FEW: -1})
    await client.cluster.health(index=own, params={"wait_for_status": "yellow"})
    await opensearch.place(index, shared=True)
    assert len(await found(opensearch, index)) == counted
    await client.close()
