"""Which children a stack has: settings and remembered state in, specifications out. Starts nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from service.local.account import Account
from service.local.milvus import milvus_child, milvus_uri
from service.local.ports import LOOPBACK
from service.local.postgres import conninfo, postgres_child, role_url
from service.local.programs import api_child, numbered, scheduler_child, schema_step, worker_child
from service.local.redis import redis_child, redis_url
from service.local.settings import CALM_THREADS, native_environment, python_environment
from service.local.spec import ChildSpec, Stage
from service.local.state import Installation
from service.queues_read import queues_read
from service.settings import Settings
from tenants.errors import Misconfigured

DATABASE, OWNER, APP, WORKER = "tessera", "tessera_owner", "tessera_app", "tessera_worker"

SOLE_WORKER = {"TESSERA_INGEST_SOLE_WORKER": "true"}
NOT_FOR_API = ("TESSERA_DATABASE_OWNER_URL", "TESSERA_DATABASE_WORKER_URL", "TESSERA_SUPERUSER_URL")
NOT_FOR_WORKERS = (
    "TESSERA_SUPERUSER_URL",
    "TESSERA_DATABASE_OWNER_URL",
    "TESSERA_DATABASE_URL",
    "TESSERA_ADMIN_KEY",
    "TESSERA_SECRET_PEPPER",
)


@dataclass(frozen=True)
class Plan:
    """A stack before its start."""

    stages: tuple[Stage, ...]
    url: str
    admin_key: str = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    """Every `TESSERA_*` setting of the stack."""
    of: Literal["stack", "servers"] = "stack"


def missing_stores(settings: Settings) -> tuple[str, ...]:
    """Return the stores whose address is not given, which the local stack therefore starts.

    Raises:
        Misconfigured: only one of the two database roles is given.
    """
    if bool(settings.database.url) != bool(settings.database.worker_url):
        raise Misconfigured("Give TESSERA_DATABASE_URL and TESSERA_DATABASE_WORKER_URL together, or neither.")
    given = {"postgres": settings.database.url, "redis": settings.redis.url, "milvus": settings.milvus.uri}
    return tuple(name for name, address in given.items() if not address)


def wanted_ports(settings: Settings, installation: Installation, given: Mapping[str, str]) -> dict[str, int]:
    """Return the preferred port of each child to start (0: any): a port set by hand, else that of the last start."""
    wanted = {name: installation.ports.get(name, 0) for name in missing_stores(settings)}
    by_hand = "TESSERA_API_PORT" in given
    wanted["api"] = settings.api.port if by_hand else installation.ports.get("api", settings.api.port)
    return wanted | {name: installation.ports.get(name, 0) for name in _apis(settings)[1:]}


def plan_stack(
    settings: Settings, installation: Installation, data_dir: Path, given: Mapping[str, str], account: Account | None
) -> Plan:
    """Describe the whole stack.

    Args:
        settings: as given; an address in it replaces a child.
        installation: secrets, and a port for each child that `wanted_ports` names.
        data_dir: absolute path.
        given: the `TESSERA_*` variables that the user has set; passed on.
        account: whom Postgres runs as, None when this process is not root.
    """
    env = {**given, **stack_environment(settings, installation, data_dir)}
    stores = store_children(settings, installation, data_dir, account)
    order = schema_order(settings, installation, env)
    schema = (schema_step(data_dir, json.dumps(order).encode(), python_environment({})),) if order else ()
    # The schema needs only Postgres, which is up long before Milvus.
    first: Stage = (
        ((*stores[:1], *schema), *stores[1:]) if "postgres" in missing_stores(settings) else (*stores, *schema)
    )
    for_api = python_environment(without(env, NOT_FOR_API)) | CALM_THREADS
    for_workers = python_environment(without(env, NOT_FOR_WORKERS)) | CALM_THREADS
    if "postgres" in missing_stores(settings) and settings.ingest.workers == 1:
        for_workers |= SOLE_WORKER  # another machine's workers may share a database that is given
    ports = installation.ports
    api_drain_s = settings.api.drain_delay_s + settings.api.drain_s
    apis = [api_child(data_dir, name, ports[name], for_api, api_drain_s) for name in _apis(settings)]
    queues = len(queues_read(settings))
    workers = [
        worker_child(data_dir, name, for_workers, settings.ingest.drain_s, queues=queues)
        for name in (numbered("worker", one + 1) for one in range(settings.ingest.workers))
    ]
    programs = (*apis, *workers, scheduler_child(data_dir, "scheduler", for_workers))
    stages = tuple(stage for stage in (first, programs) if stage)
    return Plan(stages, f"http://{LOOPBACK}:{ports['api']}", env["TESSERA_ADMIN_KEY"], env)


def _apis(settings: Settings) -> list[str]:
    return [numbered("api", one + 1) for one in range(settings.api.processes)]


def store_children(
    settings: Settings, installation: Installation, data_dir: Path, account: Account | None
) -> tuple[ChildSpec, ...]:
    """Describe the stores whose address is not given."""
    ports, secrets, native = installation.ports, installation.secrets, native_environment()
    missing = missing_stores(settings)
    children = []
    if "postgres" in missing:
        children.append(postgres_child(data_dir, ports["postgres"], secrets.superuser, account, native))
    if "redis" in missing:
        children.append(redis_child(data_dir, ports["redis"], secrets.redis, native))
    if "milvus" in missing:
        children.append(milvus_child(data_dir, ports["milvus"], python_environment({})))
    return tuple(children)


def stack_environment(settings: Settings, installation: Installation, data_dir: Path) -> dict[str, str]:
    """Return addresses, folders and secrets of the stack as settings: what was given, completed by what is local.

    Relative folders become absolute, for the children run elsewhere.
    """
    ports, secrets = installation.ports, installation.secrets
    lexical, embed = settings.lexical, settings.embed
    index = lexical.path if "path" in lexical.model_fields_set else data_dir / "lexical"
    models = embed.cache_dir if "cache_dir" in embed.model_fields_set else data_dir / "models"
    env = {
        "TESSERA_DATA_DIR": str(data_dir),
        "TESSERA_LEXICAL_PATH": str(index.absolute()),
        "TESSERA_LEXICAL_URL": lexical.url,
        "TESSERA_LEXICAL_PREFIX": lexical.prefix,
        "TESSERA_EMBED_CACHE_DIR": str(models.absolute()),
        "TESSERA_OBJECTS_URL": settings.objects.url or f"file://{quote(str(data_dir / 'objects'))}",
        "TESSERA_SECRET_PEPPER": settings.secret.pepper.get_secret_value() or secrets.pepper,
        "TESSERA_SECRET_SOURCES": settings.secret.sources.get_secret_value() or secrets.sources,
        "TESSERA_ADMIN_KEY": settings.admin_key.get_secret_value() if settings.admin_key else secrets.admin_key,
        "TESSERA_REDIS_URL": settings.redis.url or redis_url(ports["redis"], secrets.redis),
        "TESSERA_MILVUS_URI": settings.milvus.uri or milvus_uri(ports["milvus"]),
        "TESSERA_DATABASE_URL": settings.database.url,
        "TESSERA_DATABASE_WORKER_URL": settings.database.worker_url,
        "TESSERA_DATABASE_OWNER_URL": settings.database.owner_url,
    }
    if not settings.database.url:
        roles = {"URL": (APP, secrets.app), "WORKER_URL": (WORKER, secrets.worker), "OWNER_URL": (OWNER, secrets.owner)}
        for name, (role, password) in roles.items():
            env[f"TESSERA_DATABASE_{name}"] = role_url(ports["postgres"], role, password, DATABASE)
    return env


def schema_order(settings: Settings, installation: Installation, env: Mapping[str, str]) -> dict[str, str]:
    """Return the input of the schema step; empty when a database is given without its owner: its keeper migrates it."""
    secrets = installation.secrets
    if not settings.database.url:
        superuser = conninfo(installation.ports["postgres"], secrets.superuser)
        passwords = {"owner": secrets.owner, "app": secrets.app, "worker": secrets.worker}
        return {"superuser_url": superuser, **passwords}
    return {"owner_url": env["TESSERA_DATABASE_OWNER_URL"]} if env["TESSERA_DATABASE_OWNER_URL"] else {}


def without(env: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    """Return the environment less what this child has no business with, and less what is empty."""
    return {name: value for name, value in env.items() if value and name not in names}
