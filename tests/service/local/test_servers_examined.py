"""The doctor says of a server whose address its client trips over that the setting is wrong, and goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.local.finding import Finding
from service.local.given_servers import examine_servers
from service.settings import Settings
from shards.settings import LexicalSettings
from tenants.settings import DatabaseSettings, ObjectSettings, RedisSettings


async def the_finding(settings: Settings) -> Finding:
    [found] = await examine_servers(settings)
    assert not found.good
    return found


@pytest.mark.parametrize("wrong", ["ssl=true", "ssl_cert_reqs=none"])
async def test_a_redis_with_an_option_that_there_is_not(wrong: str) -> None:
    found = await the_finding(Settings(redis=RedisSettings(url=f"redis://127.0.0.1:1/0?{wrong}")))
    assert "The broker cannot be used (TypeError: " in found.detail
    assert found.mend == "correct TESSERA_REDIS_URL"


@pytest.mark.parametrize("setting", ["URL", "WORKER_URL", "OWNER_URL"])
async def test_a_database_on_a_host_that_cannot_be(setting: str) -> None:
    given = {setting.lower(): "postgresql://tessera:s3cret@db..x/t"}
    found = await the_finding(Settings(database=DatabaseSettings.model_validate(given)))
    assert "s3cret" not in found.detail
    assert f"TESSERA_DATABASE_{setting}" in found.mend


async def test_a_folder_of_words_that_cannot_be(tmp_path: Path) -> None:
    (file := tmp_path / "file").touch()
    found = await the_finding(Settings(lexical=LexicalSettings(path=file / "words")))
    assert f"TESSERA_LEXICAL_PATH names {file / 'words'}" in found.detail
    assert found.mend == "correct TESSERA_LEXICAL_*"


async def test_an_object_store_at_a_port_that_there_is_not() -> None:
    objects = ObjectSettings.model_validate(
        {"url": "s3://bucket", "endpoint": "https://h:99999", "access_key_id": "a", "secret_access_key": "s3cret"}
    )
    found = await the_finding(Settings(objects=objects))
    assert "s3cret" not in found.detail
    assert found.mend == "correct TESSERA_OBJECTS_*"
