"""What every answerer keeps, whatever stands behind it: the built-in, the stand-in, vLLM, `transformers serve`.

A model of random weights writes noise, no sentence of which passes the checks: then the built-in answers, and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest

from rag.answer.build import build_generator
from rag.answer.generator import ABSTENTION, AnswerEvent, Asked, Citation, Delta, Finished, Turn
from rag.answer.routed import RoutedGenerator
from rag.settings import GenerationSettings
from shards.embed import Embedder
from tests.rag.answer.conftest import LEAVE, QUESTION, TENANT, TRAVEL, slots_of
from tests.rag.answer.model_server import ANSWER, running_model_server
from tests.servers import server

BACKENDS = ["extractive", "stand-in", "vllm", "transformers"]
FLAGS = {(), ("generation_unsupported",)}


@dataclass(frozen=True)
class Backend:
    """An answerer, and the model that it asks; "" for none."""

    generator: RoutedGenerator
    embedder: Embedder
    model: str

    async def events(self, **changes: Any) -> list[AnswerEvent]:
        asked = {"question": QUESTION, "passages": [LEAVE, TRAVEL], "history": [], "idf": {}, **changes}
        asked["query"] = await self.embedder.embed_query(asked["question"])
        async with asyncio.timeout(120), aclosing(self.generator.answer(TENANT, Asked(**asked))) as events:
            return [event async for event in events]


@pytest.fixture(params=BACKENDS)
async def backend(request: pytest.FixtureRequest, embedder: Embedder) -> AsyncIterator[Backend]:
    name: str = request.param
    if name == "stand-in":
        async with running_model_server() as running:
            running.says("m", *(ANSWER[at : at + 7] for at in range(0, len(ANSWER), 7)))
            async for made in opened(embedder, base_url=running.url, model="m"):
                yield made
        return
    values: dict[str, Any] = {}
    if name == "vllm":
        found = server("vllm")
        values = {"base_urls": found["base_urls"], "model": found["model"]}
    if name == "transformers":
        found = server("transformers")
        values = {"base_url": found["base_url"], "model": found["model"]}
    async for made in opened(embedder, **values):
        yield made


async def opened(embedder: Embedder, **values: Any) -> AsyncIterator[Backend]:
    slow = {"max_tokens": 48, "first_token_timeout_s": 60, "total_timeout_s": 110}
    settings = GenerationSettings.model_validate({**slow, **values})
    generator = build_generator(settings, embedder, secret="a secret", slots=slots_of(settings))
    yield Backend(generator, embedder, settings.model)
    await generator.aclose()


class TestGenerator:
    async def test_the_events_say_what_the_last_one_says(self, backend: Backend) -> None:
        events = await backend.events()
        assert [type(event) for event in events].count(Finished) == 1
        finished = events[-1]
        assert isinstance(finished, Finished)
        assert "".join(event.text for event in events if isinstance(event, Delta)) == finished.answer
        assert tuple(event for event in events if isinstance(event, Citation)) == finished.citations
        assert "27 days" in finished.answer
        assert not finished.abstained
        assert finished.degraded in FLAGS
        assert finished.model == ("extractive" if finished.degraded or not backend.model else backend.model)

    async def test_a_citation_comes_after_the_text_that_names_it_and_quotes_its_passage(self, backend: Backend) -> None:
        said = ""
        numbers = []
        for event in await backend.events():
            if isinstance(event, Delta):
                said += event.text
            elif isinstance(event, Citation):
                assert f"[{event.n}]" in said
                numbers.append(event.n)
                source = LEAVE if event.chunk_id == LEAVE.chunk_id else TRAVEL
                assert source.text[event.start - source.start : event.end - source.start] == event.quote
        assert numbers == list(range(1, len(numbers) + 1))
        assert numbers

    async def test_without_passages_it_says_that_it_does_not_know(self, backend: Backend) -> None:
        events = await backend.events(passages=[])
        assert [type(event) for event in events] == [Delta, Finished]
        finished = events[-1]
        assert isinstance(finished, Finished)
        assert (finished.answer, finished.abstained, finished.citations) == (ABSTENTION, True, ())
        assert finished.degraded == ()

    async def test_a_conversation_and_odd_texts_are_taken(self, backend: Backend) -> None:
        history = [Turn("user", "What about leave? \u2028 \U0001f98a"), Turn("assistant", "27 days [1].")]
        finished = (await backend.events(history=history))[-1]
        assert isinstance(finished, Finished)
        assert finished.degraded in FLAGS

    async def test_many_at_once_do_not_mix(self, backend: Backend) -> None:
        questions = [QUESTION, "What is the mileage rate for a private car?"] * 3
        answers = await asyncio.gather(*(backend.events(question=question) for question in questions))
        for events in answers:
            finished = events[-1]
            assert isinstance(finished, Finished)
            assert "".join(event.text for event in events if isinstance(event, Delta)) == finished.answer
            assert finished.degraded in FLAGS

    async def test_closing_it_stops_the_work(self, backend: Backend) -> None:
        query = await backend.embedder.embed_query(QUESTION)
        events = backend.generator.answer(TENANT, Asked(QUESTION, [LEAVE, TRAVEL], [], {}, query))
        async with asyncio.timeout(120):
            assert isinstance(await anext(events), Delta)
            await events.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        assert all(one.outstanding == 0 for one in backend.generator.servers)

    async def test_it_says_that_its_servers_are_there(self, backend: Backend) -> None:
        # Another test may have killed a replica of vLLM.
        assert await backend.generator.state() in ({"ok", "partly"} if backend.model else {"built_in"})
