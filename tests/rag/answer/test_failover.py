"""Several replicas over real connections, each failing in its own way: the asker notices nothing, or is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from rag.answer.build import build_generator
from rag.answer.generator import AnswerEvent, Asked, Citation, Delta, Finished
from rag.answer.routed import RoutedGenerator
from rag.answer.servers import ModelServers
from rag.settings import GenerationSettings
from shards.embed import Embedder
from tenants.context import TenantContext
from tenants.errors import Misconfigured
from tests.certificates import certify
from tests.rag.answer.conftest import LEAVE, QUESTION, TENANT, TRAVEL, slots_of
from tests.rag.answer.model_server import ModelServer, chunk, running_model_server

SECRET = "a secret of the installation"
GOOD = "A full-time employee has 27 days of annual leave [1]."
OTHER_TENANT = TenantContext(TRAVEL.document_id, "birch", "key")


@pytest.fixture
async def servers() -> AsyncIterator[list[ModelServer]]:
    async with AsyncExitStack() as stack:
        running = [await stack.enter_async_context(running_model_server()) for _ in range(2)]
        for server in running:
            server.says("m", GOOD)
        yield running


class Service:
    """The answerer on some servers, closed at the end of the test."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self.opened: list[RoutedGenerator] = []

    def on(self, servers: Sequence[ModelServer], **values: Any) -> RoutedGenerator:
        defaults: dict[str, Any] = {"model": "m", "base_urls": [one.url for one in servers], "poll_s": 0.05}
        settings = GenerationSettings.model_validate({**defaults, **values})
        made = build_generator(settings, self.embedder, secret=SECRET, slots=slots_of(settings))
        assert isinstance(made._servers, ModelServers)
        made._servers.dice.seed(7)  # of two replicas both are drawn among the first three
        self.opened.append(made)
        return made

    async def ask(self, generator: RoutedGenerator, tenant: TenantContext = TENANT, **values: Any) -> Finished:
        query = await self.embedder.embed_query(QUESTION)
        asked = Asked(QUESTION, [LEAVE, TRAVEL], [], {}, query, **values)
        events: list[AnswerEvent] = []
        async with asyncio.timeout(60), aclosing(generator.answer(tenant, asked)) as stream:
            events = [event async for event in stream]
        finished = events[-1]
        assert isinstance(finished, Finished)
        assert "".join(event.text for event in events if isinstance(event, Delta)) == finished.answer
        assert tuple(event for event in events if isinstance(event, Citation)) == finished.citations
        assert "27 days" in finished.answer
        return finished


@pytest.fixture
async def service(embedder: Embedder) -> AsyncIterator[Service]:
    made = Service(embedder)
    yield made
    for generator in made.opened:
        await generator.aclose()


async def by_the_model(service: Service, generator: RoutedGenerator, times: int) -> None:
    for _ in range(times):
        finished = await service.ask(generator)
        assert (finished.model, finished.degraded) == ("m", ())


async def nonsense(_: ModelServer) -> AsyncIterator[str]:
    yield "data: {not json\n\n"


async def breaks_off(_: ModelServer) -> AsyncIterator[str]:
    yield chunk("")


@pytest.mark.parametrize("fault", ["refused", 500, 429, 503, 401, 404, "nonsense", "breaks off", "health"])
async def test_before_the_first_token_another_replica_takes_over(
    service: Service, servers: list[ModelServer], fault: str | int
) -> None:
    bad, good = servers
    if fault == "refused":
        await bad.die()
    elif fault == "health":
        bad.health = bad.status = 503
    elif isinstance(fault, int):
        bad.status = fault
    else:
        bad.scripts["m"] = nonsense if fault == "nonsense" else breaks_off
    generator = service.on(servers)
    await by_the_model(service, generator, 12)
    assert len(good.requests) == 12
    assert len(bad.requests) < 12, "it is not asked every time"
    if fault not in (401, 404):  # a replica that refuses one request may be the right one for another
        assert len(bad.requests) <= 4


async def test_no_request_is_sent_twice_when_none_would_take_it(service: Service, servers: list[ModelServer]) -> None:
    servers[0].status = servers[1].status = 400
    finished = await service.ask(service.on(servers))
    assert finished.degraded == ("generation",)
    assert sum(len(server.requests) for server in servers) == 1


async def test_tries_are_bounded(service: Service, servers: list[ModelServer]) -> None:
    servers[0].status = servers[1].status = 500
    finished = await service.ask(service.on(servers, tries=1))
    assert finished.degraded == ("generation",)
    assert sum(len(server.requests) for server in servers) == 1


async def test_a_replica_that_hangs_is_overtaken_and_not_waited_for(
    service: Service, servers: list[ModelServer]
) -> None:
    hanging, good = servers
    hanging.first_token_s = 3600
    generator = service.on(servers, first_token_timeout_s=4)
    # Whichever is asked first, each answer comes from the one that answers.
    await by_the_model(service, generator, 6)
    assert len(good.requests) == 6
    assert 1 <= len(hanging.requests) <= 2
    await asyncio.wait_for(hanging.stopped.wait(), 5)
    assert generator.figures.retries["late"] == len(hanging.requests)


async def test_without_hedges_a_replica_that_hangs_costs_the_built_in(
    service: Service, servers: list[ModelServer]
) -> None:
    for server in servers:
        server.first_token_s = 3600
    finished = await service.ask(service.on(servers, first_token_timeout_s=0.5, hedge_share=0))
    assert finished.degraded == ("generation",)
    assert sum(len(server.requests) for server in servers) == 1


async def test_a_replica_that_is_not_started_is_not_missed(service: Service, servers: list[ModelServer]) -> None:
    absent = "http://replica-7.invalid:8000/v1"
    generator = service.on(servers, base_urls=[absent, *(server.url for server in servers)])
    assert await generator.state() == "ok"
    await by_the_model(service, generator, 4)
    await servers[0].die()
    assert await generator.state() == "partly"
    assert await service.on(servers, base_urls=[absent]).state() == "away"


async def test_a_replica_that_was_killed_serves_again_when_it_is_back(
    service: Service, servers: list[ModelServer]
) -> None:
    bad = servers[0]
    port = int(bad.url.rpartition(":")[2].partition("/")[0])
    generator = service.on(servers)
    await by_the_model(service, generator, 2)
    await bad.die()
    await by_the_model(service, generator, 6)
    assert await generator.state() == "partly"
    async with running_model_server(port) as again:
        again.says("m", GOOD)
        for _ in range(100):
            await by_the_model(service, generator, 1)
            if again.requests:
                break
            await asyncio.sleep(0.05)
        assert again.requests
        assert await generator.state() == "ok"


async def test_a_replica_that_dies_in_mid_stream_leaves_a_whole_answer(
    service: Service, servers: list[ModelServer]
) -> None:
    """Its checked sentences stay, the built-in completes them, and no other model writes on."""

    async def dies(server: ModelServer) -> AsyncIterator[str]:
        yield chunk("The mileage rate for a private car is CHF 0.68 per kilometre [2]. And")
        await asyncio.sleep(0.3)
        await server.die()
        yield chunk(" then")

    for server in servers:
        server.scripts["m"] = dies
    generator = service.on(servers)
    finished = await service.ask(generator)
    assert finished.answer.startswith("The mileage rate for a private car is CHF 0.68 per kilometre. [1]")
    assert (finished.model, finished.degraded) == ("m", ("generation_interrupted",))
    assert [one.n for one in finished.citations] == [1, 2]
    assert sum(len(server.requests) for server in servers) == 1
    assert generator.figures.fallbacks == {"generation_interrupted": 1}


@pytest.mark.parametrize("said", ["", "A full-time", "You also get a company car [1]. A full-time"])
async def test_a_replica_that_dies_before_its_first_text_costs_no_answer(
    service: Service, servers: list[ModelServer], said: str
) -> None:
    """Tokens came, and nothing of them has left: to the client that is before the first token."""

    async def dies(server: ModelServer) -> AsyncIterator[str]:
        yield chunk(said)
        server.scripts["m"] = server.scripts["well"]

    for server in servers:
        server.scripts.update({"well": server.scripts["m"], "m": dies})
    generator = service.on(servers, hedge_share=0)
    servers[1].scripts["m"] = servers[1].scripts["well"]
    await by_the_model(service, generator, 8)
    retried = len(servers[0].requests) + len(servers[1].requests) - 8
    assert retried == 1, "the dying one was asked, once"
    assert generator.figures.retries == {"gone": 1}
    assert sum(generator.figures.first_tokens["m"].counts) == 8, "one for each answer"


async def test_answers_that_break_off_before_their_first_text_end_with_the_tries(
    service: Service, servers: list[ModelServer]
) -> None:
    async def dies(_: ModelServer) -> AsyncIterator[str]:
        yield chunk("A full-time")

    for server in servers:
        server.scripts["m"] = dies
    generator = service.on(servers, hedge_share=0)
    assert (await service.ask(generator)).degraded == ("generation",)
    assert [len(server.requests) for server in servers] == [1, 1], "none twice"
    assert generator.figures.first_tokens == {}, "no client saw one"
    for server in servers:
        server.requests.clear()
    assert (await service.ask(service.on(servers, hedge_share=0, tries=1))).degraded == ("generation",)
    assert sum(len(server.requests) for server in servers) == 1


async def test_no_further_replica_is_asked_when_the_time_to_begin_is_over(
    service: Service, servers: list[ModelServer]
) -> None:
    async def dies_late(_: ModelServer) -> AsyncIterator[str]:
        yield chunk("A full-time")
        await asyncio.sleep(0.8)

    for server in servers:
        server.scripts["m"] = dies_late
    generator = service.on(servers, hedge_share=0, first_token_timeout_s=0.5)
    assert (await service.ask(generator)).degraded == ("generation",)
    assert sum(len(server.requests) for server in servers) == 1


async def test_replicas_that_refuse_are_no_tries(service: Service, servers: list[ModelServer]) -> None:
    """Of four replicas one has the adapter."""
    async with AsyncExitStack() as stack:
        lacking = [await stack.enter_async_context(running_model_server()) for _ in range(3)]
        generator = service.on([*lacking, servers[0]], hedge_share=0)
        await by_the_model(service, generator, 8)
        assert all(len(server.requests) <= 8 for server in lacking), "each once an answer"
        assert generator.figures.retries["refused"] == sum(len(server.requests) for server in lacking)
        alone = service.on(lacking, hedge_share=0)
        assert (await service.ask(alone)).degraded == ("generation",)
        assert alone.figures.retries == {"refused": 2}, "after the third there is no other"


async def test_requests_go_where_the_metrics_say_there_is_room(service: Service, servers: list[ModelServer]) -> None:
    busy, idle = servers
    busy.lies = {"num_requests_running": "40", "num_requests_waiting": "3"}
    generator = service.on(servers, poll_s=5)  # what they said stays new enough while they are asked
    assert await generator.state() == "ok"
    await by_the_model(service, generator, 8)
    assert (len(busy.requests), len(idle.requests)) == (0, 8)
    busy.lies, idle.cache = {}, 0.97
    assert await generator.state() == "ok"
    await by_the_model(service, generator, 8)
    assert (len(busy.requests), len(idle.requests)) == (8, 8)


@pytest.mark.parametrize("lie", ["NaN", "-5", "1e300", "many"])
async def test_lies_in_the_metrics_are_not_believed(service: Service, servers: list[ModelServer], lie: str) -> None:
    servers[0].lies = {"num_requests_running": lie}
    generator = service.on(servers)
    assert await generator.state() == "ok"
    await by_the_model(service, generator, 20)
    assert all(4 <= len(server.requests) <= 16 for server in servers)


@pytest.mark.parametrize("words", ["openai", "detail"])
async def test_a_tenants_salt_is_its_own_and_is_left_out_only_where_it_is_refused(
    service: Service, servers: list[ModelServer], words: str
) -> None:
    takes, refuses = servers
    refuses.strict = words
    generator = service.on([takes])
    await service.ask(generator)
    await service.ask(generator, OTHER_TENANT)
    await service.ask(generator)
    salts = [asked["cache_salt"] for asked in takes.requests]
    assert salts[0] == salts[2] != salts[1]
    assert str(TENANT.tenant_id) not in salts[0]
    strict = service.on([refuses])
    await by_the_model(service, strict, 2)
    assert ["cache_salt" in asked for asked in refuses.requests] == [True, False, False], "tried once, then left out"
    assert (await service.ask(service.on([refuses], cache_salt="required"))).degraded == ("generation",)
    await by_the_model(service, service.on([takes], cache_salt="off"), 1)
    assert "cache_salt" not in takes.requests[-1]


async def test_the_chain_goes_on_to_the_models_it_falls_back_to(service: Service, servers: list[ModelServer]) -> None:
    main, small = servers
    small.says("small", GOOD)
    models = {"small": {"base_urls": [small.url], "api_key": "sesame"}}
    generator = service.on([main], models=models, fallbacks=["small"])
    main.status = 500
    finished = await service.ask(generator)
    assert (finished.model, finished.degraded) == ("small", ("generation_model",))
    assert small.authorizations == ["Bearer sesame"]
    small.status = 500
    assert (await service.ask(generator)).degraded == ("generation",)
    main.status = 0
    main.says("m", "The cafeteria opens at noon on weekdays [1].")
    for _ in range(50):  # until its pause is over
        finished = await service.ask(generator)
        if finished.degraded == ("generation_unsupported",):
            break
        await asyncio.sleep(0.1)
    assert (finished.model, finished.degraded) == ("extractive", ("generation_unsupported",))
    finished = await service.ask(generator, model="extractive")
    assert generator.figures.fallbacks["generation_model"] == 1


async def test_the_times_hold_over_all_tries_and_models(service: Service, servers: list[ModelServer]) -> None:
    for server in servers:
        server.first_token_s = 3600
        server.says("small", GOOD)
    models = {"small": {"base_urls": [server.url for server in servers]}}
    generator = service.on(servers, models=models, fallbacks=["small"], first_token_timeout_s=1.0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await service.ask(generator)).degraded == ("generation",)
    # Not 2 s (once a model) nor 4 s (once a try); the rest is the built-in's own time.
    assert loop.time() - began < 1.9
    assert {asked["model"] for server in servers for asked in server.requests} == {"m", "small"}


async def test_a_tenant_waits_for_itself_and_then_gets_the_built_in(
    service: Service, servers: list[ModelServer]
) -> None:
    for server in servers:
        server.first_token_s = 1.0
    generator = service.on(servers, concurrent_per_tenant=2, queue_per_tenant=1, patience_s=0.2, hedge_share=0)
    many = [asyncio.create_task(service.ask(generator)) for _ in range(6)]
    other = await service.ask(generator, OTHER_TENANT)
    assert other.degraded == ()
    flags = sorted(finished.degraded for finished in await asyncio.gather(*many))
    assert flags == [(), ()] + [("generation_busy",)] * 4


async def test_a_key_reaches_its_server_only(service: Service, servers: list[ModelServer]) -> None:
    servers[0].key = "k0"
    models = {"other": {"base_urls": [servers[1].url]}}
    servers[1].says("other", GOOD)
    generator = service.on([servers[0]], api_key=SecretStr("k0"), models=models, fallbacks=["other"])
    await by_the_model(service, generator, 1)
    await service.ask(generator, model="other")
    assert (servers[0].authorizations, servers[1].authorizations) == (["Bearer k0"], ["Bearer none"])


async def test_the_environments_authority_vouches_for_servers_and_its_proxies_see_nothing(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certify(tmp_path)
    for name in ("HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with running_model_server(certified=tmp_path) as server:
        server.says("m", GOOD)
        strangers = service.on([server])
        assert (await service.ask(strangers)).degraded == ("generation",)
        assert await strangers.state() == "away"
        with pytest.raises(Misconfigured, match=r"CERTIFICATE_VERIFY_FAILED.* in SSL_CERT_FILE"):
            await strangers.check()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        friends = service.on([server])
        await by_the_model(service, friends, 2)
        assert await friends.state() == "ok"
        await friends.check()


async def test_a_model_without_a_server_is_missed_though_another_model_has_one(
    service: Service, servers: list[ModelServer]
) -> None:
    absent = "http://replica-7.invalid:8000/v1"
    for urls, state in (([absent], "partly"), ([absent, servers[1].url], "ok")):
        models = {"large": {"base_urls": urls, "model": "m"}}
        assert await service.on(servers, models=models).state() == state
