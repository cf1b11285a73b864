"""The real servers beside the local stack that tests run on, where there are some.

`make servers` starts them and writes their addresses into a file; `make test-servers` names it in TESSERA_TEST_SERVERS.
Without it a test that needs one is skipped, and the end of the run lists what was left out. With it nothing may be:
a server that the file lacks fails the test.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "TESSERA_TEST_SERVERS"
LEFT_OUT = "left out: "
"""How the reason of such a skip begins."""


def addresses() -> dict[str, dict[str, Any]]:
    """Return what is known of each server by its name, {} without servers.

    Names and entries: `postgres15` and `pgbouncer` (superuser_url, program, environment), `redis` (url, program,
    environment), `milvus` (uri, token), `opensearch2` and `opensearch3` (url, java, jars), `s3` (url, endpoint, region,
    access_key_id, secret_access_key, program), `vllm` (base_urls, model, pids), `transformers` (base_url, model);
    and of the programs in `tests/checkers.py` (path).
    """
    servers: dict[str, dict[str, Any]] = _file().get("servers", {})
    return servers


def settings() -> dict[str, str]:
    """Return the `TESSERA_*` settings of a stack on the servers, {} without servers."""
    found: dict[str, str] = _file().get("settings", {})
    return found


@cache
def _file() -> dict[str, Any]:
    path = os.environ.get(VARIABLE, "")
    found: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    return found


def server(name: str) -> dict[str, Any]:
    """Return a server's entry; skip the test without servers, fail it when this one alone is missing."""
    if not addresses():
        pytest.skip(f"{LEFT_OUT}{name}: a server of its own, `make test-servers` starts it")
    if name not in addresses():
        pytest.fail(f"{name} is not among the servers of {VARIABLE}: {', '.join(sorted(addresses()))}")
    return addresses()[name]


def left_out(reasons: list[str]) -> list[str]:
    """Return what was left out, each once, of the reasons for which tests were skipped."""
    return sorted({reason.partition(LEFT_OUT)[2] for reason in reasons if LEFT_OUT in reason})
