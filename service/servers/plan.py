"""Which children the servers are: names in, specifications out. Starts nothing, but fetches what is not there."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from service.local.account import unprivileged_account
from service.local.plan import Plan
from service.local.ports import choose_ports
from service.local.postgres import conninfo, postgres_child
from service.local.programs import schema_step
from service.local.redis import redis_child
from service.local.settings import native_environment, python_environment
from service.local.spec import Member
from service.local.state import StackState
from service.servers.addresses import stack_settings, write_addresses
from service.servers.azurite import azurite_child
from service.servers.entries import REDIS_USER, Running, server_entries
from service.servers.fetched import Fetched
from service.servers.generators import (
    ADAPTER,
    ADAPTS,
    EMBEDDER,
    GENERATES,
    POOLS,
    RERANKER,
    transformers_child,
    vllm_child,
)
from service.servers.installation import (
    ALL,
    AZURITE,
    MILVUS,
    MILVUS_HEALTH,
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
    port_names,
)
from service.servers.milvus import milvus_child
from service.servers.opensearch import PORTS, opensearch_child
from service.servers.postgres15 import pgbouncer_child, postgres15
from service.servers.programs import Found
from service.servers.s3 import s3_child


def plan_servers(servers: Sequence[str], fetched: Fetched, data_dir: Path) -> Plan:
    """Choose ports, remember them, and describe the servers. The data folder must be held (`owner.owned`).

    Raises:
        FetchFailed: a program cannot be had.
        Misconfigured: the state file is damaged.
    """
    installation = ServerInstallation.load(data_dir)
    wanted = {name: installation.ports.get(name, 0) for name in port_names(tuple(servers))}
    ports = choose_ports(wanted, {OPENSEARCH_2: PORTS, OPENSEARCH_3: PORTS})
    installation = installation.model_copy(update={"ports": installation.ports | ports})
    installation.save(data_dir)
    describe = Describe(installation, fetched, data_dir)
    chosen = [describe.of(server) for server in servers]
    settings = stack_settings(installation, servers, data_dir)
    return Plan(stages=(tuple(chosen),), url="", admin_key="", env=settings, of="servers")


class Describe:
    """Specifications of the servers, by name."""

    def __init__(self, installation: ServerInstallation, fetched: Fetched, data_dir: Path) -> None:
        self._ports = installation.ports
        self._secrets = installation.secrets
        self._fetched = fetched
        self._data_dir = data_dir
        self._env = native_environment()

    def of(self, server: str) -> tuple[Member, ...]:
        """Return what a server consists of, to be started one after the other."""
        kinds: dict[str, Callable[[], tuple[Member, ...]]] = {
            POSTGRES: self._postgres,
            REDIS: self._redis,
            MILVUS: self._milvus,
            OPENSEARCH_2: lambda: self._opensearch(OPENSEARCH_2),
            OPENSEARCH_3: lambda: self._opensearch(OPENSEARCH_3),
            S3: self._s3,
            VLLM: self._vllm,
            TRANSFORMERS: self._transformers,
            VLLM_EMBED: self._vllm_embed,
            VLLM_RERANK: self._vllm_rerank,
            AZURITE: self._azurite,
            TORCH: lambda: (),
        }
        return kinds[server]()

    def _postgres(self) -> tuple[Member, ...]:
        known, port, pooled = self._secrets, self._ports[POSTGRES], self._ports[PGBOUNCER]
        edition, pooler, account = (
            postgres15(self._fetched.postgres()),
            self._fetched.pgbouncer(),
            unprivileged_account(),
        )
        order = {"superuser_url": conninfo(port, known.superuser)}
        order |= {"owner": known.owner, "app": known.app, "worker": known.worker}
        return (
            postgres_child(self._data_dir, port, known.superuser, account, self._env, edition),
            schema_step(self._data_dir, json.dumps(order).encode(), python_environment({})),
            pgbouncer_child(self._data_dir, (pooled, port), known.superuser, account, pooler, self._env),
        )

    def _redis(self) -> tuple[Member, ...]:
        found = self._fetched.redis()
        env = {**self._env, **found.environment()}
        port, password = self._ports[REDIS], self._secrets.redis
        return (redis_child(self._data_dir, port, password, env, program=found.path, user=REDIS_USER),)

    def _milvus(self) -> tuple[Member, ...]:
        ports = self._ports[MILVUS], self._ports[MILVUS_HEALTH]
        return (milvus_child(self._data_dir, *ports, self._fetched.milvus(), self._env),)

    def _opensearch(self, name: str) -> tuple[Member, ...]:
        java, jars = self._fetched.java(name), self._fetched.jars(name)
        env = {**self._env, **java.environment()}
        return (opensearch_child(self._data_dir, name, self._ports[name], jars, java.path, env),)

    def _s3(self) -> tuple[Member, ...]:
        return (s3_child(self._data_dir, self._ports[S3], self._secrets.s3, self._fetched.versitygw(), self._env),)

    def _vllm(self) -> tuple[Member, ...]:
        python, model = self._fetched.vllm(), self._fetched.model()
        words = (*GENERATES, *ADAPTS, f"{ADAPTER}={model / 'adapter'}")
        return tuple(
            vllm_child(self._data_dir, name, self._ports[name], python, model, self._env, words) for name in REPLICAS
        )

    def _transformers(self) -> tuple[Member, ...]:
        python, model = self._fetched.vllm(), self._fetched.model()
        return (transformers_child(self._data_dir, self._ports[TRANSFORMERS], python, model, self._env),)

    def _pooling(self, name: str, model: Path, served: str) -> tuple[Member, ...]:
        env = {**self._env, "VLLM_API_KEY": self._secrets.models}
        words = (*POOLS, served)
        return (vllm_child(self._data_dir, name, self._ports[name], self._fetched.vllm(), model, env, words),)

    def _vllm_embed(self) -> tuple[Member, ...]:
        return self._pooling(VLLM_EMBED, self._fetched.embedder(), EMBEDDER)

    def _vllm_rerank(self) -> tuple[Member, ...]:
        return self._pooling(VLLM_RERANK, self._fetched.reranker(), RERANKER)

    def _azurite(self) -> tuple[Member, ...]:
        node, package = self._fetched.azurite()
        port = self._ports[AZURITE]
        return (azurite_child(self._data_dir, port, self._secrets.azure, node, package, self._env),)


def announce(servers: Sequence[str], state: StackState, fetched: Fetched, data_dir: Path) -> None:
    """Write the addresses of what runs for tests and for `tessera servers env`."""
    pids = {child.name: child.pid for child in state.children}
    running = Running(ServerInstallation.load(data_dir), programs_of(servers, fetched), pids)
    write_addresses(data_dir, server_entries(running, servers), state.env)


def programs_of(servers: Sequence[str], fetched: Fetched) -> dict[str, Found]:
    """Return where the programs of some servers are, and the model of the generators."""
    places: dict[str, dict[str, Callable[[], Found]]] = {
        POSTGRES: {POSTGRES: fetched.postgres, PGBOUNCER: fetched.pgbouncer},
        REDIS: {REDIS: fetched.redis},
        S3: {S3: lambda: Found(fetched.versitygw())},
        **{name: _of_opensearch(name, fetched) for name in (OPENSEARCH_2, OPENSEARCH_3)},
        TRANSFORMERS: {TRANSFORMERS: lambda: Found(fetched.model())},
        MILVUS: {MILVUS: lambda: Found(fetched.milvus())},
        TORCH: {TORCH: lambda: Found(fetched.torch())},
    }
    return {name: place() for server in servers for name, place in places.get(server, {}).items()}


def _of_opensearch(name: str, fetched: Fetched) -> dict[str, Callable[[], Found]]:
    return {name: lambda: Found(fetched.jars(name)), f"{name} java": lambda: fetched.java(name)}


def running_servers(state: StackState) -> list[str]:
    """Return the servers whose children were started."""
    names = {child.name for child in state.children}
    return [server for server in ALL if server in names or (server == VLLM and names & set(REPLICAS))]
