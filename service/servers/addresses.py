"""Where the servers are: what tests are told (tests/servers.py), and the settings by which Tessera uses them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from service.local.account import private_file
from service.local.postgres import role_url
from service.local.redis import redis_url
from service.servers.entries import REDIS_USER, http
from service.servers.generators import MODEL
from service.servers.installation import (
    MILVUS,
    OPENSEARCH_2,
    PGBOUNCER,
    POSTGRES,
    REDIS,
    REPLICAS,
    S3,
    VLLM,
    ServerInstallation,
)
from service.servers.milvus import TOKEN
from service.servers.s3 import ACCESS_KEY_ID, BUCKET, REGION
from tenants.roles import APP, OWNER, WORKER

FILE = "servers.json"
DATABASE = "tessera"
STACK = "stack"
"""Folder of a stack on these servers, beside their own: it has secrets of its own and no stores."""


def stack_settings(installation: ServerInstallation, servers: Collection[str], data_dir: Path) -> dict[str, str]:
    """Return the `TESSERA_*` settings of a stack on the servers that run; the local stack starts the rest."""
    ports, secrets = installation.ports, installation.secrets
    settings = {"TESSERA_DATA_DIR": str(data_dir / STACK), "TESSERA_SERVERS_DIR": str(data_dir)}
    if POSTGRES in servers:
        pooled, direct = ports[PGBOUNCER], ports[POSTGRES]
        settings["TESSERA_DATABASE_URL"] = role_url(pooled, APP, secrets.app, DATABASE)
        settings["TESSERA_DATABASE_WORKER_URL"] = role_url(pooled, WORKER, secrets.worker, DATABASE)
        # Migrations set timeouts for their session and hold a lock of the session: not through the pooler.
        settings["TESSERA_DATABASE_OWNER_URL"] = role_url(direct, OWNER, secrets.owner, DATABASE)
    if REDIS in servers:
        settings["TESSERA_REDIS_URL"] = redis_url(ports[REDIS], secrets.redis, REDIS_USER)
    if MILVUS in servers:
        settings |= {"TESSERA_MILVUS_URI": http(ports[MILVUS]), "TESSERA_MILVUS_TOKEN": TOKEN}
    if OPENSEARCH_2 in servers:
        settings["TESSERA_LEXICAL_URL"] = http(ports[OPENSEARCH_2])
    if S3 in servers:
        settings["TESSERA_OBJECTS_URL"] = f"s3://{BUCKET}/originals"
        settings |= {"TESSERA_OBJECTS_ENDPOINT": http(ports[S3]), "TESSERA_OBJECTS_REGION": REGION}
        settings["TESSERA_OBJECTS_ACCESS_KEY_ID"] = ACCESS_KEY_ID
        settings["TESSERA_OBJECTS_SECRET_ACCESS_KEY"] = secrets.s3
    if VLLM in servers:
        urls = [http(ports[name], "/v1") for name in REPLICAS]
        settings |= {"TESSERA_GENERATION_BASE_URLS": json.dumps(urls), "TESSERA_GENERATION_MODEL": MODEL}
    return settings


def write_addresses(data_dir: Path, servers: Mapping[str, Any], settings: Mapping[str, str]) -> None:
    """Write the file that tests read; only its owner may."""
    text = json.dumps({"servers": servers, "settings": settings}, indent=2)
    private_file(data_dir / FILE, text + "\n")
