"""What outlives a restart of the servers: secrets and ports, and the names by which each is known."""

from __future__ import annotations

from base64 import b64encode
from secrets import token_bytes

from pydantic import ConfigDict, Field

from service.local.state import Installation, Secrets, secret

POSTGRES, PGBOUNCER, REDIS, MILVUS = "postgres", "pgbouncer", "redis", "milvus"
OPENSEARCH_2, OPENSEARCH_3, S3 = "opensearch2", "opensearch3", "s3"
VLLM, TRANSFORMERS = "vllm", "transformers"
VLLM_EMBED, VLLM_RERANK, AZURITE, TORCH = "vllm_embed", "vllm_rerank", "azurite", "torch"
SERVERS = (POSTGRES, REDIS, MILVUS, OPENSEARCH_2, OPENSEARCH_3, S3, VLLM, TRANSFORMERS)
"""What is started when no name is given, in the order in which a person reads of them."""
FOR_TESTS = (VLLM_EMBED, VLLM_RERANK, AZURITE, TORCH)
"""What tests need beyond: models that embed and rerank, Azure's blobs, and packages with torch, which are no server."""
ALL = (*SERVERS, *FOR_TESTS)

REPLICAS = ("vllm-1", "vllm-2")
MILVUS_HEALTH = "milvus-health"
"""Milvus has its health on a port of its own."""


class ServerSecrets(Secrets):
    """Those of the stores, and of further servers."""

    model_config = ConfigDict(frozen=True)

    s3: str = Field(default_factory=secret, repr=False)
    models: str = Field(default_factory=secret, repr=False)
    """Key of the servers that embed and rerank."""
    azure: str = Field(default_factory=lambda: b64encode(token_bytes(64)).decode("ascii"), repr=False)


class ServerInstallation(Installation):
    """Secrets and ports of the servers."""

    secrets: ServerSecrets = Field(default_factory=ServerSecrets)


def port_names(servers: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the ports that these servers listen on."""
    more: dict[str, tuple[str, ...]] = {TORCH: ()}
    more |= {POSTGRES: (POSTGRES, PGBOUNCER), VLLM: REPLICAS, MILVUS: (MILVUS, MILVUS_HEALTH)}
    return tuple(port for server in servers for port in more.get(server, (server,)))
