"""`tessera milvus init` on a real Milvus: a user that may do what the service does, and nothing else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from uuid import uuid4

import pytest
from pydantic import SecretStr
from pymilvus import MilvusClient

from shards.milvus import MilvusVectors
from shards.milvus_check import OF_DATABASES, PRIVILEGES
from shards.milvus_user import make_user
from shards.settings import MilvusSettings
from tenants.errors import Misconfigured, Unavailable

HOLDS_S = 180
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


async def until(settings: MilvusSettings, wanted: str) -> None:
    """Return when the service would start with these settings, or is refused in words with `wanted` in them: what is
    granted and what is revoked holds a little later."""
    store, words = MilvusVectors(settings), "nothing"
    try:
        async with asyncio.timeout(HOLDS_S):
            while True:
                try:
                    await store.check()
                    words = ""
                except (Misconfigured, Unavailable) as refused:
                    words = refused.detail
                if wanted in words if wanted else not words:
                    return
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(words) from None
    finally:
        await store.aclose()


async def good(settings: MilvusSettings) -> None:
    await until(settings, "")


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
    root.revoke_privilege(name, "Collection", "Search", "*", db_name="*")
    await until(settings, "Search")  # what is granted while a revocation is on its way may be overtaken by it
    root.revoke_role(name, name)
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
