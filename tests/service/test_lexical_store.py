"""Which lexical store the settings choose."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.resources import lexical_store, open_stores
from service.settings import Settings
from service.startup import all_good
from shards.bm25 import TantivyLexical
from shards.opensearch import OpenSearchLexical
from shards.settings import LexicalSettings, MilvusSettings
from tenants.errors import Misconfigured
from tenants.settings import ObjectSettings


async def test_an_address_chooses_the_server(tmp_path: Path) -> None:
    assert isinstance(lexical_store(LexicalSettings(path=tmp_path)), TantivyLexical)
    on_a_server = lexical_store(LexicalSettings(path=tmp_path, url="https://search.example:9200"))
    assert isinstance(on_a_server, OpenSearchLexical)
    await on_a_server.aclose()


def test_who_has_no_server_does_not_wait_for_its_client() -> None:
    program = "import sys, service.app, service.worker; sys.exit(bool({'opensearchpy', 'aiohttp'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://admin:s3cret@h:9200", "TESSERA_LEXICAL_USER and TESSERA_LEXICAL_PASSWORD"),
        *((f"http://{place}", "http://host:port") for place in ("h:99999", "h:0", "h:x", "h:", "", "h:1/index", "h?x")),
        ("h:9200", "http://host:port"),
    ],
)
def test_an_address_that_can_never_work_is_refused_in_a_sentence(
    url: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESSERA_LEXICAL_URL", url)
    with pytest.raises(Misconfigured, match="The setting TESSERA_LEXICAL_URL is wrong") as refused:
        Settings()
    assert said in refused.value.detail
    assert "s3cret" not in refused.value.detail


async def test_the_folder_of_words_is_looked_at_before_the_service_starts(tmp_path: Path) -> None:
    (file := tmp_path / "file").touch()
    settings = Settings(
        milvus=MilvusSettings(uri="http://127.0.0.1:1"),
        objects=ObjectSettings(url=f"file://{tmp_path}"),
        lexical=LexicalSettings(path=file / "words"),
    )
    async with open_stores(settings) as stores:
        looks = [check for check in stores.checks() if check.subject == "the lexical store"]
        with pytest.raises(Misconfigured, match="TESSERA_LEXICAL_PATH"):
            await all_good(looks, 0)
