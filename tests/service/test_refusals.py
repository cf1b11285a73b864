"""What bad settings get, from real servers: one sentence that names setting, cause and mend, and never a secret."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import psycopg
import pytest
from sqlalchemy import make_url

from migrations.head import HEAD
from service.local.ports import free_port
from service.redis_access import RedisAddress
from service.redis_check import RedisState, check_redis, refuse_version
from tenants.db import Database
from tenants.errors import Misconfigured, TesseraError, Unavailable
from tenants.postgres_check import WRITES, PostgresState, check_postgres, refuse
from tenants.roles import APP, OWNER, WORKER
from tenants.settings import DatabaseSettings
from tests.clusters import replica_of
from tests.redis_server import redis_server

if TYPE_CHECKING:
    from service.local.state import StackState
    from tests.clusters import Cluster

APP_SETTING, WORKER_SETTING = "TESSERA_DATABASE_URL", "TESSERA_DATABASE_WORKER_URL"
GOOD = PostgresState(
    version=150018, release="Postgres 15.18", role=APP, bypasses=False, owns=False, roles=(APP,), pooled=False, free=50,
    most=60, revision=HEAD, needs="", closed=(),
)  # fmt: skip


@pytest.fixture(scope="module")
def urls(postgres18: Cluster) -> dict[str, str]:
    return postgres18.prepared("refusals")


async def refusal(url: str, setting: str = APP_SETTING, patience_s: float = 3.0) -> TesseraError:
    """Return what a start is told about a database."""
    with pytest.raises(TesseraError) as raised:
        async with aclosing(Database(url, DatabaseSettings(connect_timeout_s=patience_s), setting=setting)) as database:
            await check_postgres(database, HEAD)
    found = raised.value
    assert setting in found.detail
    password = make_url(url).password
    assert not password or password not in found.detail
    return found


@contextmanager
def superuser(cluster: Cluster, database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(cluster.superuser(database), autocommit=True) as connection:
        yield connection


async def test_a_wrong_password(urls: dict[str, str]) -> None:
    found = await refusal(make_url(urls[APP]).set(password="wr0ng").render_as_string(hide_password=False))
    assert isinstance(found, Misconfigured)
    assert "refuses the login of role tessera_app" in found.detail
    assert "tessera db init" in found.detail


async def test_a_role_that_does_not_exist(urls: dict[str, str]) -> None:
    found = await refusal(make_url(urls[APP]).set(username="nobody").render_as_string(hide_password=False))
    assert isinstance(found, Misconfigured)


async def test_a_database_that_does_not_exist(urls: dict[str, str]) -> None:
    found = await refusal(make_url(urls[APP]).set(database="nothing").render_as_string(hide_password=False))
    assert (type(found), "has no such database" in found.detail) == (Misconfigured, True)


async def test_a_role_that_may_not_connect(urls: dict[str, str], postgres18: Cluster) -> None:
    with superuser(postgres18, "refusals") as connection:
        connection.execute(f"REVOKE CONNECT ON DATABASE refusals FROM {APP}")
        found = await refusal(urls[APP])
        connection.execute(f"GRANT CONNECT ON DATABASE refusals TO {APP}")
    assert (type(found), "does not let role tessera_app into the database" in found.detail) == (Misconfigured, True)


async def test_a_role_without_grants(urls: dict[str, str], postgres18: Cluster) -> None:
    with superuser(postgres18, "refusals") as connection:
        connection.execute(f"REVOKE SELECT ON chunks, documents FROM {APP}")
        found = await refusal(urls[APP])
        connection.execute(f"GRANT SELECT ON chunks, documents TO {APP}")
    assert (type(found), "read chunks, documents" in found.detail) == (Misconfigured, True)


@pytest.mark.parametrize("privilege", ["INSERT", "UPDATE"])
async def test_a_role_that_may_read_and_not_write(urls: dict[str, str], postgres18: Cluster, privilege: str) -> None:
    with superuser(postgres18, "refusals") as connection:
        connection.execute(f"REVOKE {privilege} ON jobs FROM {APP}")
        found = await refusal(urls[APP])
        connection.execute(f"GRANT {privilege} ON jobs TO {APP}")
    assert (type(found), f"{privilege} ON jobs TO {APP}" in found.detail) == (Misconfigured, True), found.detail


def test_what_the_roles_have_to_write_is_what_the_migrations_grant(urls: dict[str, str], postgres18: Cluster) -> None:
    privileges = (
        "SELECT privilege_type, string_agg(table_name, ' ' ORDER BY table_name)"
        " FROM information_schema.table_privileges WHERE grantee = %s AND table_schema = 'public'"
        " AND privilege_type <> 'SELECT' GROUP BY 1"
    )
    assert urls
    with superuser(postgres18, "refusals") as connection:
        for role, needed in WRITES.items():
            assert dict(connection.execute(privileges, (role,)).fetchall()) == needed


@pytest.mark.parametrize(("how", "back"), [("DISABLE", "ENABLE"), ("NO FORCE", "FORCE")])
@pytest.mark.parametrize("table", ["chunks", "tenants"])
async def test_a_table_without_row_level_security(
    urls: dict[str, str], postgres18: Cluster, table: str, how: str, back: str
) -> None:
    with superuser(postgres18, "refusals") as connection:
        connection.execute(f"ALTER TABLE {table} {how} ROW LEVEL SECURITY")
        found = await refusal(urls[APP])
        connection.execute(f"ALTER TABLE {table} {back} ROW LEVEL SECURITY")
    assert (type(found), f"apart in {table}:" in found.detail) == (Misconfigured, True), found.detail


@pytest.mark.parametrize("whose", [f"ROLE {APP}", "DATABASE refusals"])
async def test_a_server_that_takes_no_writes(urls: dict[str, str], postgres18: Cluster, whose: str) -> None:
    with superuser(postgres18, "refusals") as connection:
        connection.execute(f"ALTER {whose} SET default_transaction_read_only = on")
        found = await refusal(urls[APP])
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER {whose} RESET default_transaction_read_only")
    assert (type(found), "default_transaction_read_only" in found.detail) == (Misconfigured, True)


async def test_a_replica(urls: dict[str, str], postgres18: Cluster) -> None:
    with replica_of(postgres18) as replica:
        found = await refusal(make_url(urls[APP]).set(port=replica.port).render_as_string(hide_password=False))
    assert (type(found), "is a replica" in found.detail) == (Misconfigured, True), found.detail


@pytest.mark.parametrize("role", ["postgres", OWNER])
async def test_a_role_that_row_level_security_does_not_bind(urls: dict[str, str], role: str) -> None:
    found = await refusal(urls[role])
    assert (type(found), "use 'tessera_app'" in found.detail) == (Misconfigured, True)


async def test_the_two_roles_exchanged(urls: dict[str, str]) -> None:
    found = await refusal(urls[WORKER])
    assert "is for the role 'tessera_app'" in found.detail
    assert "is for the role 'tessera_worker'" in (await refusal(urls[APP], WORKER_SETTING)).detail


async def test_a_schema_that_is_not_migrated(urls: dict[str, str], postgres18: Cluster) -> None:
    with superuser(postgres18, "postgres") as connection:
        connection.execute("CREATE DATABASE empty_one")
        connection.execute(f"GRANT CONNECT ON DATABASE empty_one TO {APP}")
    found = await refusal(
        make_url(postgres18.prepared("refusals")[APP]).set(database="empty_one").render_as_string(False)
    )
    assert (found.code, "tessera db upgrade" in found.detail) == ("schema_not_migrated", True)


async def test_an_older_and_a_newer_schema(urls: dict[str, str], postgres18: Cluster) -> None:
    with superuser(postgres18, "refusals") as connection:
        try:
            connection.execute("UPDATE alembic_version SET version_num = '0012'")
            assert (await refusal(urls[APP])).code == "schema_not_migrated"
            connection.execute(f"REVOKE SELECT ON alembic_version FROM {APP}")  # as before 0013
            assert (await refusal(urls[APP])).code == "schema_not_migrated"
            connection.execute(f"GRANT SELECT ON alembic_version TO {APP}")
            connection.execute("UPDATE alembic_version SET version_num = '9000'")
            async with aclosing(Database(urls[APP], DatabaseSettings())) as database:
                assert (await check_postgres(database, HEAD)).revision == "9000", "newer, and nothing was taken away"
            connection.execute("""COMMENT ON TABLE alembic_version IS '{"needs": "8000"}'""")
            assert (await refusal(urls[APP])).code == "schema_too_new"
        finally:
            connection.execute("COMMENT ON TABLE alembic_version IS NULL")
            connection.execute("UPDATE alembic_version SET version_num = %s", (HEAD,))


def test_a_server_that_is_too_old() -> None:
    refuse(GOOD, APP_SETTING, "h:5432/tessera", HEAD)
    with pytest.raises(Misconfigured, match=r"TESSERA_DATABASE_URL.*Postgres 14\.9; at least 15"):
        refuse(replace(GOOD, version=140009, release="Postgres 14.9"), APP_SETTING, "h:5432/tessera", HEAD)


async def test_nobody_at_the_port() -> None:
    found = await refusal(f"postgresql://{APP}:s3cret@127.0.0.1:{free_port()}/tessera")
    assert (type(found), "refused" in found.detail) == (Unavailable, True)


async def test_another_kind_of_server_at_the_port(web_server: int) -> None:
    found = await refusal(f"postgresql://{APP}:s3cret@127.0.0.1:{web_server}/tessera")
    assert (type(found), "does not speak the protocol of Postgres" in found.detail) == (Misconfigured, True)


@pytest.mark.parametrize("url", ["mysql://a:s3cret@h/db", "no address", "postgresql://a:s3cret@h:port/db"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(Misconfigured, match=r"TESSERA_DATABASE_URL.*postgresql\+psycopg://") as refused:
        Database(url, DatabaseSettings())
    assert "s3cret" not in refused.value.detail


async def test_an_address_with_an_unknown_parameter(urls: dict[str, str]) -> None:
    found = await refusal(f"{urls[APP]}?sslmod=require")
    assert (type(found), "sslmod" in found.detail) == (Misconfigured, True)


async def test_a_server_without_tls_where_it_is_asked_for(urls: dict[str, str]) -> None:
    found = await refusal(f"{urls[APP]}?sslmode=require")
    assert (type(found), "sslmode" in found.detail) == (Misconfigured, True)


@pytest.fixture
async def web_server() -> AsyncIterator[int]:
    """A server that answers whatever it is sent as web servers do."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port := free_port())
    async with server:
        yield port


async def redis_refusal(url: str) -> TesseraError:
    with pytest.raises(TesseraError) as raised:
        await check_redis(RedisAddress("TESSERA_REDIS_URL", url), "broker")
    assert "TESSERA_REDIS_URL" in raised.value.detail
    assert "s3cret" not in raised.value.detail
    return raised.value


async def test_redis_with_a_wrong_password(stack: StackState) -> None:
    place = stack.env["TESSERA_REDIS_URL"].rpartition("@")[2]
    for login in (":s3cret@", "user:s3cret@", ""):
        found = await redis_refusal(f"redis://{login}{place}")
        assert (type(found), "refuses the login" in found.detail) == (Misconfigured, True), found.detail


async def test_redis_that_denies_a_command() -> None:
    with redis_server(acl="user narrow on >s3cret ~tessera:* +@all -lpush") as running:
        found = await redis_refusal(running.url("narrow:s3cret"))
    assert (type(found), "lpush" in found.detail) == (Misconfigured, True)


@pytest.mark.parametrize("use", ["broker", "cache"])
@pytest.mark.parametrize("denied", ["-eval -evalsha", "-script", "-zcard", "-time", "-smembers", "-zrem", "-del"])
async def test_redis_that_denies_what_counts_places_and_processes(denied: str, use: Literal["broker", "cache"]) -> None:
    with redis_server(acl=f"user narrow on >s3cret ~tessera:* +@all {denied}") as running:
        with pytest.raises(Misconfigured, match=r"Grant it what docs/operations\.md lists") as refused:
            await check_redis(RedisAddress("TESSERA_REDIS_CACHE_URL", running.url("narrow:s3cret")), use)
        assert "TESSERA_REDIS_CACHE_URL" in refused.value.detail


async def test_another_kind_of_server_where_redis_should_be(web_server: int) -> None:
    found = await redis_refusal(f"redis://:s3cret@127.0.0.1:{web_server}/0")
    assert (type(found), "does not speak the protocol" in found.detail) == (Misconfigured, True)


@pytest.mark.parametrize("host", ["127.0.0.1", "nobody.svc.cluster.local", "redis-tls", "certificate.noauth"])
async def test_no_redis_at_the_address_whatever_its_name_says(host: str) -> None:
    found = await redis_refusal(f"redis://{host}:{free_port()}/0")
    assert (type(found), host in found.detail) == (Unavailable, True), found.detail


async def test_a_redis_cluster() -> None:
    with redis_server(cluster=True) as running, running.client() as admin:
        assert "is a Redis Cluster" in (await redis_refusal(running.url())).detail, "one that serves no slot"
        admin.execute_command("CLUSTER ADDSLOTS", *range(16384))
        while admin.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            await asyncio.sleep(0.05)
        assert "is a Redis Cluster" in (await redis_refusal(running.url())).detail, "keys of two slots"
        found = await redis_refusal(running.url().replace("/0", "/3"))
        assert (type(found), "is a Redis Cluster" in found.detail) == (Misconfigured, True)


async def test_a_redis_cluster_whose_keys_are_elsewhere() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while words := await reader.read(4096):
            moved = b"SET" in words.split(b"\r\n")
            writer.write(b"-MOVED 3999 10.0.0.7:6381\r\n" if moved else b"+OK\r\n" * words.count(b"*"))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", port := free_port()):
        assert "is a Redis Cluster" in (await redis_refusal(f"redis://127.0.0.1:{port}/0?protocol=2")).detail


@pytest.mark.parametrize("url", ["http://h:1", "redis://", "127.0.0.1:6379", "redis://h:6379/zero", "redis://h:port/0"])
async def test_what_is_no_address_of_a_redis(url: str) -> None:
    assert type(await redis_refusal(url)) is Misconfigured


def test_redis_that_is_too_old() -> None:
    address = RedisAddress("TESSERA_REDIS_URL", "redis://h/0")
    refuse_version(RedisState("6.2.14", "noeviction"), address)
    with pytest.raises(Misconfigured, match=r"5\.0\.7; at least 6\.2"):
        refuse_version(RedisState("5.0.7", None), address)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://tessera_app:s3cr@etpart@db/t",
        "postgresql://tessera_app:s3cr@etpart/x@db/t",
        "postgresql://tessera_app:s3cr@etpart?x@db/t?sslmode=require",
        "postgresql://tessera_app/s3cr:etpart=@db/t",
    ],
)
def test_an_address_whose_password_is_not_encoded_is_not_said_in_part(url: str) -> None:
    with pytest.raises(Misconfigured, match="percent-encode the password in TESSERA_DATABASE_URL") as refused:
        Database(url, DatabaseSettings())
    assert not any(part in refused.value.detail for part in ("s3cr", "etpart", "db/t"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user@azure:s3cret@h/t",
        "postgresql://a:s3?ret@h/t?sslmode=require",
        "postgresql://a:s3%40ret@h/t?host=@abstract",
    ],
)
async def test_an_at_sign_may_stand_where_it_ends_no_password(url: str) -> None:
    async with aclosing(Database(url, DatabaseSettings())) as database:
        assert database.url.password in {"s3cret", "s3?ret", "s3@ret"}


@pytest.mark.parametrize("port", ["0", "99999"])
def test_a_port_that_there_is_not(port: str) -> None:
    with pytest.raises(Misconfigured, match=r"TESSERA_DATABASE_URL.*1 to 65535"):
        Database(f"postgresql://a:s3cret@h:{port}/t", DatabaseSettings())


@pytest.mark.parametrize("wrong", ["target_session_attrs=foo", "gssencmode=foo", "ssl_min_protocol_version=foo"])
async def test_an_address_with_a_value_that_there_is_not(wrong: str) -> None:
    found = await refusal(f"postgresql://{APP}:s3cret@127.0.0.1:{free_port()}/tessera?{wrong}")
    assert (type(found), "has an address that cannot be used" in found.detail) == (Misconfigured, True), found.detail


async def test_another_port_that_there_is_not() -> None:
    found = await refusal(f"postgresql://{APP}:s3cret@/tessera?host=127.0.0.1&port=99999")
    assert (type(found), "invalid port number" in found.detail) == (Misconfigured, True), found.detail
