"""One real local stack for the whole session, and databases beside it for tests that need the tables to themselves."""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from xdist.scheduler import LoadFileScheduling

from service.database import prepare
from service.local.ports import free_port
from service.local.postgres import conninfo, role_url
from service.local.settings import python_environment
from service.local.state import Installation, StackState, running_stack
from tenants.db import Database
from tenants.roles import APP, OWNER, WORKER, RolePasswords
from tenants.settings import DatabaseSettings
from tests.clusters import Cluster, cluster
from tests.embedding_server import DIM, NAME, EmbeddingServer
from tests.faults.own_stack import own_stack
from tests.rag.answer.model_server import ANSWER, ModelServer, ThreadedModelServer
from tests.server_marks import mark_of
from tests.server_stack import make_database, stack_settings
from tests.servers import addresses, left_out

START_TIMEOUT_S = 240
CELLS_FROM, CELL_ROWS = 1_000, 50
"""The stack's tenants have an index of their own, divided into cells, from so many chunks, not from 4,000."""
FOLDERS = "folders"
"""Beside the data folder: where tenants of the stack may register folders as sources."""
ON_FRAGILE_STACK = {
    "tests/faults/test_kill_rounds.py",
    "tests/faults/test_originals_on_s3.py",
    "tests/faults/test_short_of_stores.py",
    "tests/ingestion/test_fsck_foreign.py",
}
STANDIN, ADAPTERS = "standin", ("amber-legal", "birch-legal")
NOBODYS_SERVER = '{"eu": {"uri": "http://127.0.0.1:1"}}'
"""A vector server that is always away."""


class ByModule(LoadFileScheduling):
    """Where tests run in several processes, those of a module stay together, and so do those of the fragile stack. A
    process whose tests want the stack has one of its own: all of them in one process would take longer than the rest.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return "fragile" if module in ON_FRAGILE_STACK else module


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByModule:
    """Groups by mark (`--dist loadgroup`) are lost between this pytest and this pytest-xdist."""
    return ByModule(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which servers the run did without."""
    skipped = terminalreporter.stats.get("skipped", [])
    for line in left_out([report.longrepr[2] for report in skipped]):
        terminalreporter.write_line(f"left out: {line}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test-servers` runs."""
    for item in items:
        if mark := mark_of(item):
            item.add_marker(mark)


@dataclass(frozen=True)
class TenantAccess:
    """A tenant made for a test: its id, slug, one key, and a client that uses it."""

    id: str
    slug: str
    key: str
    client: httpx.AsyncClient

    async def upload(self, text: str | bytes, filename: str = "note.txt", **form: str) -> dict[str, Any]:
        """Upload a document, wait for its job and return the answer with the finished job."""
        content = text.encode() if isinstance(text, str) else text
        answer = await self.client.post("/v1/documents", files={"file": (filename, content)}, data=form)
        assert answer.status_code in (200, 202), answer.text
        body: dict[str, Any] = answer.json()
        return {**body, "job": await self.job(body["job"]["id"])}

    async def job(self, job_id: str) -> dict[str, Any]:
        """Wait until a job has ended."""
        for _ in range(600):
            job: dict[str, Any] = (await self.client.get(f"/v1/jobs/{job_id}")).json()
            if job["state"] in ("done", "failed", "cancelled"):
                return job
            await asyncio.sleep(0.1)
        raise AssertionError(f"job {job_id} did not end: {job}")

    async def search(self, query: str, **body: Any) -> list[dict[str, Any]]:
        """Search and return the hits."""
        answer = await self.client.post("/v1/search", json={"query": query, **body})
        assert answer.status_code == 200, answer.text
        hits: list[dict[str, Any]] = answer.json()["hits"]
        return hits


@dataclass(frozen=True)
class DatabaseUrls:
    """A database of its own: URLs by role."""

    app: str
    worker: str
    owner: str
    superuser: str


def tessera(
    *arguments: str, data_dir: Path, timeout: float = START_TIMEOUT_S, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line with a data folder of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from service.cli.main import main; main()", *arguments],
        env=python_environment(
            {
                "TESSERA_DATA_DIR": str(data_dir),
                "TESSERA_SOURCES_ALLOW_NETWORKS": "127.0.0.0/8:*",
                "TESSERA_SOURCES_FOLDERS": str(data_dir.parent / FOLDERS),
                **settings,
            }
        ),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="session")
def embedding_server() -> Iterator[EmbeddingServer]:
    """A further embedding model of the stack, on a server."""
    server = EmbeddingServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def model_server() -> Iterator[ModelServer]:
    """A language model and two adapters of the stack, which tenants may be allowed; none has them by itself."""
    running = ThreadedModelServer()
    for name in (STANDIN, *ADAPTERS):
        running.server.says(name, *(ANSWER[at : at + 10] for at in range(0, len(ANSWER), 10)))
    yield running.server
    running.close()


@pytest.fixture(scope="session")
def stack(
    tmp_path_factory: pytest.TempPathFactory, embedding_server: EmbeddingServer, model_server: ModelServer
) -> Iterator[StackState]:
    """The whole local stack, started by the command that users start it with."""
    data_dir = tmp_path_factory.mktemp("stack") / "data"
    models = {NAME: {"kind": "openai", "url": embedding_server.url, "dim": DIM, "budget_s": 1}}
    small = {"THRESHOLD": CELLS_FROM, "POOLED_ROWS": CELLS_FROM, "ROWS_PER_CELL": CELL_ROWS}
    settings = {f"TESSERA_SHARDS_{name}": str(value) for name, value in small.items()}
    settings["TESSERA_API_PORT"] = str(free_port())  # others start a stack at the same moment
    settings |= stack_settings()
    settings["TESSERA_GENERATION_MODELS"] = json.dumps(
        {STANDIN: {"base_urls": [model_server.url], "adapters": list(ADAPTERS)}}
    )
    started = tessera("up", data_dir=data_dir, TESSERA_EMBED_MODELS=json.dumps(models), **settings)
    assert started.returncode == 0, started.stdout + started.stderr
    state = running_stack(data_dir)
    assert state is not None
    yield state
    stopped = tessera("down", data_dir=data_dir)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr


@pytest.fixture(scope="session")
def fragile_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackState]:
    """Another whole stack, that may be killed piece by piece and is checked as a whole: who breaks it waits until it is
    healthy, and who needs it to be whole erases what it leaves."""
    with own_stack(tmp_path_factory.mktemp("fragile") / "data", TESSERA_MILVUS_ENDPOINTS=NOBODYS_SERVER) as running:
        yield running


@pytest.fixture(scope="session")
async def admin(stack: StackState) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the admin key."""
    headers = {"Authorization": f"Bearer {stack.admin_key}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=60) as client:
        yield client


async def new_tenant(admin: httpx.AsyncClient, name: str) -> TenantAccess:
    """Create a tenant with one key."""
    slug = f"{name}-{secrets.token_hex(4)}"
    created = await admin.post("/v1/admin/tenants", json={"slug": slug, "name": name})
    assert created.status_code == 201, created.text
    tenant_id = created.json()["id"]
    key = (await admin.post(f"/v1/admin/tenants/{tenant_id}/keys", json={"name": "test"})).json()["key"]
    headers = {"Authorization": f"Bearer {key}"}
    client = httpx.AsyncClient(base_url=str(admin.base_url), headers=headers, timeout=60)
    return TenantAccess(tenant_id, slug, key, client)


@pytest.fixture(scope="session")
def make_tenant(admin: httpx.AsyncClient) -> Callable[[str], Awaitable[TenantAccess]]:
    """Creates tenants of the running stack."""
    return lambda name: new_tenant(admin, name)


@pytest.fixture
async def tenant(admin: httpx.AsyncClient) -> AsyncIterator[TenantAccess]:
    """A fresh tenant of the running stack."""
    access = await new_tenant(admin, "tenant")
    async with access.client:
        yield access


@pytest.fixture
async def other_tenant(admin: httpx.AsyncClient) -> AsyncIterator[TenantAccess]:
    """A second fresh tenant of the running stack."""
    access = await new_tenant(admin, "other")
    async with access.client:
        yield access


@pytest.fixture(scope="session")
def own_database(stack: StackState) -> DatabaseUrls:
    """A migrated database beside the stack's own, on the same server, that no worker looks at."""
    return _database_beside(stack, "tessera_tests")


@pytest.fixture(scope="session")
def spare_database(stack: StackState) -> DatabaseUrls:
    """Another one, for tests that take the schema down."""
    return _database_beside(stack, "tessera_spare")


def _database_beside(stack: StackState, name: str) -> DatabaseUrls:
    if addresses():
        return DatabaseUrls(**make_database(f"{name}_{secrets.token_hex(4)}"))
    installation = Installation.load(Path(stack.env["TESSERA_DATA_DIR"]))
    known, port = installation.secrets, installation.ports["postgres"]
    passwords = RolePasswords(owner=known.owner, app=known.app, worker=known.worker)
    superuser = conninfo(port, known.superuser)
    prepare(superuser, passwords, name)
    return DatabaseUrls(
        app=role_url(port, APP, known.app, name),
        worker=role_url(port, WORKER, known.worker, name),
        owner=role_url(port, OWNER, known.owner, name),
        superuser=role_url(port, "postgres", known.superuser, name),
    )


@pytest.fixture(scope="session")
async def app_database(own_database: DatabaseUrls) -> AsyncIterator[Database]:
    """The own database as the app's role."""
    database = Database(own_database.app, DatabaseSettings())
    yield database
    await database.aclose()


@pytest.fixture(scope="session")
async def worker_database(own_database: DatabaseUrls) -> AsyncIterator[Database]:
    """The own database as the worker's role."""
    database = Database(own_database.worker, DatabaseSettings(), setting="TESSERA_DATABASE_WORKER_URL")
    yield database
    await database.aclose()


@pytest.fixture(scope="session")
def postgres18() -> Iterator[Cluster]:
    """A server of the bundled version whose roles and settings a test may change."""
    with cluster(18) as running:
        yield running


@pytest.fixture(scope="session")
def postgres15() -> Iterator[Cluster]:
    """One of the oldest version that is supported, where there are servers."""
    with cluster(15) as running:
        yield running


@pytest.fixture(params=[18, 15])
def any_postgres(request: pytest.FixtureRequest) -> Cluster:
    """Each of them in turn."""
    found: Cluster = request.getfixturevalue(f"postgres{request.param}")
    return found
