"""Which lexical store the settings choose."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from service.resources import lexical_store
from shards.bm25 import TantivyLexical
from shards.opensearch import OpenSearchLexical
from shards.settings import LexicalSettings


async def test_an_address_chooses_the_server(tmp_path: Path) -> None:
    assert isinstance(lexical_store(LexicalSettings(path=tmp_path)), TantivyLexical)
    on_a_server = lexical_store(LexicalSettings(path=tmp_path, url="https://search.example:9200"))
    assert isinstance(on_a_server, OpenSearchLexical)
    await on_a_server.aclose()


def test_who_has_no_server_does_not_wait_for_its_client() -> None:
    program = "import sys, service.app, service.worker; sys.exit(bool({'opensearchpy', 'aiohttp'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
