"""The doctor asks the servers of the declared models."""

from __future__ import annotations

from rag.settings import GenerationSettings
from service.local.finding import Finding
from service.local.given_servers import examine_servers
from service.settings import Settings
from tests.rag.answer.model_server import running_model_server


async def examined(url: str, model: str) -> Finding:
    settings = Settings(generation=GenerationSettings(base_urls=[url], model=model))
    findings = [finding for finding in await examine_servers(settings) if finding.subject == "models"]
    assert len(findings) == 1
    return findings[0]


async def test_a_model_is_good_unknown_or_away() -> None:
    async with running_model_server() as server:
        server.says("m", "x")
        assert (await examined(server.url, "m")).good
        unknown = await examined(server.url, "n")
        assert (unknown.good, unknown.mend) == (False, "correct TESSERA_GENERATION_*")
        assert "has no model 'n'; it has 'm'" in unknown.detail
        url = server.url
    away = await examined(url, "m")
    assert (away.good, away.mend) == (False, "start it, or correct TESSERA_GENERATION_*")
    assert url in away.detail
    none = [finding.subject for finding in await examine_servers(Settings())]
    assert "models" not in none
