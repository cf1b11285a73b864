"""Composition of the read line: reranker, retriever and generator, with the places that a tenant has in each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from rag.answer.build import build_generator
from rag.chat import Answerer
from rag.pipeline import Retriever
from rag.search.build import build_reranker
from rag.search.places import Places
from service.checks import reranker_check, store_check
from service.resources import Resources
from service.settings import Settings
from service.startup import all_good
from shards.usage import UsageWatch
from tenants.shared_places import SharedPlaces


@asynccontextmanager
async def open_read_line(
    settings: Settings, resources: Resources, *, usage: UsageWatch, shared: SharedPlaces, secret: str
) -> AsyncIterator[Answerer]:
    """Open what answers questions; close what it holds open.

    Raises:
        Misconfigured: a reranker or a generator refuses us. One that does not answer is done without until it does.
    """
    async with AsyncExitStack() as stack:
        search, generation = settings.search, settings.generation
        reranker = build_reranker(search)
        if reranker is not None:
            stack.push_async_callback(reranker.aclose)
        retriever = Retriever(
            database=resources.database,
            indexes=resources.indexes,
            embedder=resources.embedder,
            models=resources.models,
            reranker=reranker,
            settings=search,
            usage=usage,
            places=Places(search.concurrent_per_tenant, search.queue_per_tenant, search.patience_s, shared),
        )
        slots = Places(
            generation.concurrent_per_tenant,
            generation.queue_per_tenant,
            generation.patience_s,
            shared,
            kind="answers",
        )
        generator = build_generator(generation, resources.embedder, secret=secret, slots=slots)
        stack.push_async_callback(generator.aclose)
        optional = [] if reranker is None else [reranker_check(reranker)]
        await all_good([*optional, *store_check("the generator", generator, needed=False)], 0)
        yield Answerer(retriever, generator, generation.passages)
