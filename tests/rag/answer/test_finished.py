"""What is told at the end of an answer: which model wrote it, and what all of them have used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from rag.answer.build import build_generator
from rag.answer.generator import Asked, Finished
from rag.answer.routed import RoutedGenerator
from rag.settings import GenerationSettings
from shards.embed import Embedder
from tenants.context import TenantContext, TenantSettings
from tests.rag.answer.conftest import LEAVE, QUESTION, TENANT, slots_of
from tests.rag.answer.model_server import ModelServer, chunk, running_model_server, usage

GOOD = "A full-time employee has 27 days of annual leave [1]."


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with running_model_server() as running:
        running.says("m", GOOD)
        yield running


@pytest.fixture
async def generator(server: ModelServer, embedder: Embedder) -> AsyncIterator[RoutedGenerator]:
    settings = GenerationSettings(base_url=server.url, model="m", fallbacks=["m"])
    made = build_generator(settings, embedder, secret="a secret", slots=slots_of(settings))
    yield made
    await made.aclose()


async def ask(generator: RoutedGenerator, embedder: Embedder, tenant: TenantContext = TENANT) -> Finished:
    asked = Asked(QUESTION, [LEAVE], [], {}, await embedder.embed_query(QUESTION))
    async with aclosing(generator.answer(tenant, asked)) as events:
        finished = [event async for event in events][-1]
    assert isinstance(finished, Finished)
    return finished


async def test_a_first_model_that_is_declared_no_more_is_told(generator: RoutedGenerator, embedder: Embedder) -> None:
    tenant = replace(TENANT, settings=TenantSettings(generation_models=["gone", "m"]))
    finished = await ask(generator, embedder, tenant)
    assert (finished.model, finished.degraded) == ("m", ("generation_model",))
    assert generator.figures.fallbacks == {"generation_model": 1}


async def test_another_model_that_breaks_off_is_told_as_well(
    server: ModelServer, generator: RoutedGenerator, embedder: Embedder
) -> None:
    server.says("m", GOOD + " And", finish=None)
    tenant = replace(TENANT, settings=TenantSettings(generation_models=["gone", "m"]))
    finished = await ask(generator, embedder, tenant)
    assert (finished.model, finished.degraded) == ("m", ("generation_interrupted", "generation_model"))


@pytest.mark.parametrize(
    ("said", "degraded"),
    [
        (["The cafeteria opens at noon [1]."], ("generation_unsupported",)),
        ([GOOD + " And", None], ("generation_interrupted",)),
    ],
)
async def test_what_a_model_used_is_told_also_when_another_ends_the_answer(
    server: ModelServer,
    generator: RoutedGenerator,
    embedder: Embedder,
    said: list[str | None],
    degraded: tuple[str, ...],
) -> None:
    async def script(_: ModelServer) -> AsyncIterator[str]:
        for piece in said:
            if piece is None:
                yield usage(11, 7)
                return
            yield chunk(piece)
        yield chunk("", finish="stop")
        yield usage(11, 7)

    server.scripts["m"] = script
    finished = await ask(generator, embedder)
    assert finished.degraded == degraded
    assert (finished.prompt_tokens, finished.completion_tokens) == (11, 7)
