"""The user that the service is to a real Milvus, made by `tessera milvus init` or by the page: it may do what the
service does, and nothing else; without one of its privileges the start says which.

One file for both, since its tests must not run beside each other: of what two change at once the server may take the
older for the newer.
"""

from __future__ import annotations

import asyncio
import operator
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr
from pymilvus import MilvusClient

from shards.milvus import MilvusVectors
from shards.milvus_check import OF_DATABASES, PRIVILEGES
from shards.milvus_user import OF_SERVER, make_user
from shards.names import TIERS, Space
from shards.settings import MilvusSettings
from tenants.errors import Misconfigured, Unavailable
from tests.stores.chunk_vectors import DIM, Rng, chunks, found, listed

PAGE = Path(__file__).parents[2] / "docs" / "milvus.md"
HOLDS_S, STAYS = 60, 3
PASSWORD = "a-long-password"


@pytest.fixture
def root(real: MilvusSettings) -> Iterator[MilvusClient]:
    """The administrator."""
    client = MilvusClient(real.uri, token=real.token.get_secret_value())
    yield client
    client.close()


@pytest.fixture
def name(root: MilvusClient) -> Iterator[str]:
    """A user, and a role, that nobody else has; removed after the test."""
    made = f"tessera_{uuid4().hex[:8]}"
    yield made
    if made in root.list_users():
        root.drop_user(made)
    if made in root.list_roles():
        for one in root.describe_role(made)["privileges"]:
            root.revoke_privilege(
                made, one["object_type"], one["privilege"], one["object_name"], db_name=one["db_name"]
            )
        root.drop_role(made)


def as_user(real: MilvusSettings, name: str, password: str = PASSWORD) -> MilvusSettings:
    return real.model_copy(update={"token": SecretStr(f"{name}:{password}")})


async def until(
    settings: MilvusSettings, lacking: Callable[[list[str]], object], change: Callable[[list[str]], None]
) -> None:
    """Change something, until the privileges that the start of the service names are as wanted, and stay so.

    A change holds a little later; what the server decided while it took it in may stay until the next one, and one that
    is made twice may arrive once more after what is changed next.
    """
    store, named, held = MilvusVectors(settings), list[str](), 0
    try:
        async with asyncio.timeout(HOLDS_S):
            while held < STAYS:
                if not held:
                    change(named)
                await asyncio.sleep(1)
                try:
                    await store.check()
                    named = []
                except Misconfigured as refused:
                    found = re.search(r"lacks the privileges ([\w, ]+)", refused.detail)
                    named = found[1].split(", ") if found else [refused.detail]
                held = held + 1 if lacking(named) else 0
    except TimeoutError:
        raise AssertionError(named) from None
    finally:
        await store.aclose()


async def good(settings: MilvusSettings) -> None:
    store = MilvusVectors(settings)
    await store.check()
    await store.aclose()


async def without(root: MilvusClient, settings: MilvusSettings, privilege: str) -> None:
    """Take a privilege from the user of these settings, and no other."""
    name = settings.token.get_secret_value().partition(":")[0]

    def revoke(lacking: list[str]) -> None:
        for one in (*PRIVILEGES, *OF_DATABASES):
            kind = "Global" if one in OF_SERVER else "Collection"
            if one == privilege:
                root.revoke_privilege(name, kind, one, "*", db_name="*")
            elif one in lacking:  # it took what was granted before for older than that
                root.grant_privilege(name, kind, one, "*", db_name="*")

    await until(settings, lambda lacking: lacking == [privilege], revoke)


async def test_the_user_may_do_what_the_service_does_and_nothing_else(
    real: MilvusSettings, root: MilvusClient, name: str
) -> None:
    settings, admin = as_user(real, name), real.token.get_secret_value()
    assert f"made the user {name}" in await make_user(settings, admin)
    granted = root.describe_role(name)["privileges"]
    assert {one["privilege"] for one in granted} == {*PRIVILEGES, *OF_DATABASES}
    assert {(one["object_name"], one["db_name"]) for one in granted} == {("*", "*")}
    assert root.describe_user(name)["roles"] == (name,)
    await good(settings)
    assert await make_user(settings, admin) == [], "all is there"


async def test_what_is_missing_is_made_again(real: MilvusSettings, root: MilvusClient, name: str) -> None:
    settings, admin = as_user(real, name), real.token.get_secret_value()
    await make_user(settings, admin)
    await good(settings)
    await without(root, settings, "Search")
    await until(settings, lambda lacking: "CreateCollection" in lacking, lambda _: root.revoke_role(name, name))
    assert await make_user(settings, admin) == ["granted it Search", "gave it the role"]
    await good(settings)


async def test_the_password_of_a_user_that_is_there_is_not_changed(real: MilvusSettings, name: str) -> None:
    admin = real.token.get_secret_value()
    await make_user(as_user(real, name), admin)
    with pytest.raises(Misconfigured, match=f"has a user '{name}' with another password"):
        await make_user(as_user(real, name, "another-password"), admin)
    await good(as_user(real, name))


@pytest.mark.parametrize(
    ("token", "admin", "complaint"),
    [
        ("tessera:password", "root:wrong", r"refuses the login.*TESSERA_MILVUS_ADMIN_TOKEN"),
        ("a-token", "root:Milvus", r"TESSERA_MILVUS_TOKEN is not `user:password`"),
        ("root:Milvus", "root:Milvus", r"the same user, 'root'"),
    ],
)
async def test_what_cannot_be_is_said(real: MilvusSettings, token: str, admin: str, complaint: str) -> None:
    with pytest.raises(Misconfigured, match=complaint):
        await make_user(real.model_copy(update={"token": SecretStr(token)}), admin)


async def test_a_password_that_the_server_does_not_take_is_said(real: MilvusSettings, name: str) -> None:
    with pytest.raises(Misconfigured, match=f"refuses the user '{name}'"):
        await make_user(as_user(real, name, "abc"), real.token.get_secret_value())


def test_the_command_reads_its_settings_from_the_environment(
    real: MilvusSettings, root: MilvusClient, name: str
) -> None:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("TESSERA_")},
        "TESSERA_MILVUS_URI": real.uri,
        "TESSERA_MILVUS_TOKEN": f"{name}:{PASSWORD}",
        "TESSERA_MILVUS_ADMIN_TOKEN": real.token.get_secret_value(),
    }
    words = [sys.executable, "-m", "service.cli.main", "milvus", "init"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"made the user {name}" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert name in root.list_users()
    del environment["TESSERA_MILVUS_ADMIN_TOKEN"]
    lacking = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (lacking.returncode, "TESSERA_MILVUS_ADMIN_TOKEN" in lacking.stderr) == (1, True)


@pytest.fixture
async def user(root: MilvusClient, name: str, real: MilvusSettings) -> MilvusSettings:
    """The user that the page makes, by the statements on it; the command finds nothing to add."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    login = f'"{real.uri}", token="{real.token.get_secret_value()}"'
    code = code.replace('"http://127.0.0.1:19530", token="root:Milvus"', login).replace('"tessera"', f'"{name}"')
    exec(code, {})
    made = as_user(real, name)
    assert await make_user(made, real.token.get_secret_value()) == []
    return made


async def test_with_the_role_everything_can_be_done(user: MilvusSettings, rng: Rng) -> None:
    store, tenant = MilvusVectors(user), uuid4()
    for tier in TIERS:
        await use(store, Space(tenant, 1, DIM, tier, bucket=4002 if tier == "pooled" else 0), rng)
    await store.drop_tenant(tenant)
    assert await store.places(tenant) == []
    await store.aclose()


async def use(store: MilvusVectors, space: Space, rng: Rng) -> None:
    await store.create(space, cells=1)
    rows = chunks(rng, [1, 2, 3])
    await store.insert(space, {0: rows})
    assert len(await found(store, space, rows[0].vector, 5)) == 3
    assert len(await store.fetch(space, {0: [rows[0].chunk_id]})) == 1
    assert len(await listed(store.scan(space))) == 3
    await store.delete_chunks(space, {0: [rows[0].chunk_id]})
    assert await store.delete_versions(space, [2]) == 1
    if not space.pooled:
        await store.add_cells(space, [1])
        await store.drop_cells(space, [1])
        assert await store.release(space)
    assert await store.count(space) == 1


@pytest.mark.parametrize("privilege", ["CreateCollection", "Upsert", "CreateDatabase"])
async def test_a_missing_privilege_is_named(user: MilvusSettings, root: MilvusClient, privilege: str) -> None:
    await without(root, user, privilege)
    if privilege in OF_DATABASES:
        await good(user.model_copy(update={"databases": 0}))


async def test_a_privilege_of_the_default_database_alone_is_not_enough(
    user: MilvusSettings, root: MilvusClient, name: str
) -> None:
    """Isolated tenants have databases of their own."""
    await without(root, user, "Search")

    def grant(_: list[str]) -> None:
        root.grant_privilege(name, "Collection", "Search", "*", db_name="default")

    await until(user.model_copy(update={"databases": 0}), operator.not_, grant)
    await until(user, lambda lacking: lacking == ["Search"], grant)


async def test_what_the_user_may_not_do_is_unavailable_in_operation(
    user: MilvusSettings, root: MilvusClient, rng: Rng, caplog: pytest.LogCaptureFixture
) -> None:
    store, space = MilvusVectors(user), Space(uuid4(), 1, DIM)
    await store.create(space, cells=1)
    await without(root, user, "Search")
    [row] = chunks(rng, [1])
    with pytest.raises(Unavailable) as caught:
        await store.search(space, row.vector, k=1, cells=None, scope=None)
    assert caught.value.retryable
    assert "rivilege" not in caught.value.detail, "callers of the service are not told"
    assert "PrivilegeSearch" in caplog.text, "the operator is"
    await store.drop(space)
    await store.aclose()


def test_the_page_names_the_privileges_that_are_checked() -> None:
    lines = re.findall(r"^OF_\w+ \+?= \[(.*)\]$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    named = [name for line in lines for name in re.findall(r'"(\w+)"', line)]
    assert sorted(named) == sorted([*PRIVILEGES, *OF_DATABASES])


@pytest.mark.parametrize("token", ["", "root:wrong", "nobody:Passw0rd"])
async def test_a_refused_login_is_named(real: MilvusSettings, token: str) -> None:
    store = MilvusVectors(MilvusSettings(uri=real.uri, token=SecretStr(token)))
    with pytest.raises(Misconfigured, match=r"refuses the login.*TESSERA_MILVUS_TOKEN"):
        await store.check()
    with pytest.raises(Unavailable):
        await store.ping()
    await store.aclose()
