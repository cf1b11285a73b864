"""The role of docs/milvus.md: with it everything can be done, without one of its privileges the start says which."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr
from pymilvus import MilvusClient

from shards.milvus import MilvusVectors
from shards.milvus_check import OF_DATABASES, PRIVILEGES
from shards.names import TIERS, Space
from shards.settings import MilvusSettings
from tenants.errors import Misconfigured, Unavailable
from tests.stores.chunk_vectors import DIM, Rng, chunks, found, listed

PAGE = Path(__file__).parents[2] / "docs" / "milvus.md"
HOLDS_S = 180
GLOBAL = ("CreateCollection", "DropCollection", "DescribeCollection", "ShowCollections", *OF_DATABASES)


@pytest.fixture(scope="module")
def root(real: MilvusSettings) -> Iterator[MilvusClient]:
    """The administrator."""
    client = MilvusClient(real.uri, token=real.token.get_secret_value())
    forget(client)
    yield client
    forget(client)
    client.close()


def forget(client: MilvusClient) -> None:
    """Remove what the page makes."""
    if "tessera" in client.list_users():
        client.drop_user("tessera")
    if "tessera" in client.list_roles():
        for granted in client.describe_role("tessera")["privileges"]:
            kind, privilege, name = (granted[key] for key in ("object_type", "privilege", "object_name"))
            client.revoke_privilege("tessera", kind, privilege, name, db_name=granted["db_name"])
        client.drop_role("tessera")


@pytest.fixture(scope="module")
async def user(root: MilvusClient, real: MilvusSettings) -> MilvusSettings:
    """The user that the page makes, by the statements on it."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    login = f'"{real.uri}", token="{real.token.get_secret_value()}"'
    exec(code.replace('"http://127.0.0.1:19530", token="root:Milvus"', login), {})
    made = MilvusSettings(uri=real.uri, token=SecretStr("tessera:a-long-password"))
    await said(made, "")
    return made


async def said(settings: MilvusSettings, wanted: str) -> None:
    """Check until that is what is said of a server: what is granted or revoked holds a little later."""
    store, words = MilvusVectors(settings), "nothing"
    try:
        async with asyncio.timeout(HOLDS_S):
            while words != wanted:
                await asyncio.sleep(0.2)
                try:
                    await store.check()
                    words = ""
                except Misconfigured as refused:
                    words = "".join(re.findall(r"lacks the privileges ([\w, ]+)", refused.detail)) or refused.detail
    except TimeoutError:
        raise AssertionError(f"said {words!r}, not {wanted!r}") from None
    finally:
        await store.aclose()


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


@pytest.fixture
async def without(user: MilvusSettings, root: MilvusClient) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """Takes a privilege from the user, which gets it back after the test."""
    taken: list[str] = []

    def kind(privilege: str) -> str:
        return "Global" if privilege in GLOBAL else "Collection"

    async def take(privilege: str) -> None:
        root.revoke_privilege("tessera", kind(privilege), privilege, "*", db_name="*")
        taken.append(privilege)
        await said(user, privilege)

    yield take
    for privilege in taken:
        root.grant_privilege("tessera", kind(privilege), privilege, "*", db_name="*")
    await said(user, "")


@pytest.mark.parametrize("privilege", ["CreateCollection", "Upsert", "CreateDatabase"])
async def test_a_missing_privilege_is_named(
    user: MilvusSettings, without: Callable[[str], Awaitable[None]], privilege: str
) -> None:
    await without(privilege)
    if privilege in OF_DATABASES:
        await said(user.model_copy(update={"databases": 0}), "")


async def test_a_privilege_of_the_default_database_alone_is_not_enough(
    user: MilvusSettings, root: MilvusClient, without: Callable[[str], Awaitable[None]]
) -> None:
    """Isolated tenants have databases of their own."""
    await without("Search")
    root.grant_privilege("tessera", "Collection", "Search", "*", db_name="default")
    try:
        await said(user.model_copy(update={"databases": 0}), "")
        await said(user, "Search")
    finally:
        root.revoke_privilege("tessera", "Collection", "Search", "*", db_name="default")


async def test_what_the_user_may_not_do_is_unavailable_in_operation(
    user: MilvusSettings, without: Callable[[str], Awaitable[None]], rng: Rng, caplog: pytest.LogCaptureFixture
) -> None:
    store, space = MilvusVectors(user), Space(uuid4(), 1, DIM)
    await store.create(space, cells=1)
    await without("Search")
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
