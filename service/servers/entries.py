"""What tests are told of each server that runs (tests/servers.py says what is in it)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from service.local.ports import LOOPBACK
from service.local.postgres import conninfo
from service.local.redis import redis_url
from service.servers import azurite
from service.servers.generators import ADAPTER, EMBEDDER, MODEL, RERANKER
from service.servers.installation import (
    AZURITE,
    MILVUS,
    OPENSEARCH_2,
    OPENSEARCH_3,
    PGBOUNCER,
    POSTGRES,
    REDIS,
    REPLICAS,
    S3,
    TORCH,
    TRANSFORMERS,
    VLLM,
    VLLM_EMBED,
    VLLM_RERANK,
    ServerInstallation,
)
from service.servers.milvus import TOKEN
from service.servers.programs import Found
from service.servers.s3 import ACCESS_KEY_ID, BUCKET, REGION

REDIS_USER = "tessera"
Entry = dict[str, Any]


def http(port: int, path: str = "") -> str:
    """Return an address on this machine."""
    return f"http://{LOOPBACK}:{port}{path}"


@dataclass(frozen=True)
class Running:
    """What entries are made of."""

    installation: ServerInstallation
    programs: Mapping[str, Found]
    """Where the programs are that tests start more of, and models, by the names of `plan.programs_of`."""
    pids: Mapping[str, int]
    """Process of each child by its name."""

    def url(self, name: str, path: str = "") -> str:
        """Return the address of a child."""
        return http(self.installation.ports[name], path)

    def program(self, name: str) -> str:
        """Return where a program is."""
        return str(self.programs[name].path)

    def program_to_start(self, name: str) -> Entry:
        """Return the part of an entry that says how to start one more: `program`, and the `environment` it needs."""
        return {"program": self.program(name), "environment": self.programs[name].environment()}


def server_entries(running: Running, servers: Collection[str]) -> dict[str, Entry]:
    """Return the entries of these servers by the names that tests know."""
    kinds: dict[str, Callable[[Running], dict[str, Entry]]] = {
        POSTGRES: _postgres,
        REDIS: _redis,
        MILVUS: lambda of: {MILVUS: {"uri": of.url(MILVUS), "token": TOKEN, "package": of.program(MILVUS)}},
        OPENSEARCH_2: lambda of: _opensearch(of, OPENSEARCH_2),
        OPENSEARCH_3: lambda of: _opensearch(of, OPENSEARCH_3),
        S3: _s3,
        VLLM: _vllm,
        TRANSFORMERS: lambda of: {
            TRANSFORMERS: {"base_url": of.url(TRANSFORMERS, "/v1"), "model": of.program(TRANSFORMERS)}
        },
        VLLM_EMBED: lambda of: _pooling(of, VLLM_EMBED, EMBEDDER),
        VLLM_RERANK: lambda of: _pooling(of, VLLM_RERANK, RERANKER),
        AZURITE: _azurite,
        TORCH: lambda of: {TORCH: {"python": of.program(TORCH)}},
    }
    return {name: entry for server in servers for name, entry in kinds[server](running).items()}


def _postgres(of: Running) -> dict[str, Entry]:
    ports, password = of.installation.ports, of.installation.secrets.superuser
    direct, pooled = (conninfo(ports[at], password) for at in (POSTGRES, PGBOUNCER))
    return {
        "postgres15": {"superuser_url": direct, **of.program_to_start(POSTGRES)},
        PGBOUNCER: {"superuser_url": pooled, **of.program_to_start(PGBOUNCER)},
    }


def _redis(of: Running) -> dict[str, Entry]:
    url = redis_url(of.installation.ports[REDIS], of.installation.secrets.redis, REDIS_USER)
    return {REDIS: {"url": url, **of.program_to_start(REDIS)}}


def _opensearch(of: Running, name: str) -> dict[str, Entry]:
    return {name: {"url": of.url(name), "java": of.program(f"{name} java"), "jars": of.program(name)}}


def _s3(of: Running) -> dict[str, Entry]:
    login = {"access_key_id": ACCESS_KEY_ID, "secret_access_key": of.installation.secrets.s3}
    place = {"url": f"s3://{BUCKET}", "endpoint": of.url(S3), "region": REGION}
    return {S3: {**place, **login, "program": of.program(S3)}}


def _vllm(of: Running) -> dict[str, Entry]:
    urls = [of.url(name, "/v1") for name in REPLICAS]
    pids = [of.pids.get(name, 0) for name in REPLICAS]
    return {VLLM: {"base_urls": urls, "model": MODEL, "adapter": ADAPTER, "pids": pids}}


def _pooling(of: Running, name: str, model: str) -> dict[str, Entry]:
    return {name: {"base_url": of.url(name, "/v1"), "model": model, "key": of.installation.secrets.models}}


def _azurite(of: Running) -> dict[str, Entry]:
    login = {"access_key_id": azurite.ACCOUNT, "secret_access_key": of.installation.secrets.azure}
    return {AZURITE: {"url": f"az://{azurite.CONTAINER}", "endpoint": of.url(AZURITE, f"/{azurite.ACCOUNT}"), **login}}
