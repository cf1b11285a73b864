"""The three real servers: who may reach them, what they promise, what a second start finds."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat

import psutil
import psycopg
import pytest
import redis

from service.local import processes
from service.local.account import unprivileged_account
from service.local.postgres import conninfo
from service.local.stores import Stores, start_stores
from tenants.errors import Conflict


@pytest.fixture(scope="module")
async def stores(tmp_path_factory):
    """Running stores of a folder below one that only its owner may enter."""
    closed = tmp_path_factory.mktemp("closed")
    closed.chmod(0o700)
    started = await start_stores(closed / "data")
    yield started
    await started.stop()


def children(stores: Stores):
    return {child.name: child for child in stores._supervisor.children()}


def setting(stores, name):
    with psycopg.connect(stores.superuser_url) as connection:
        return connection.execute("SELECT current_setting(%s)", (name,)).fetchone()[0]


def test_all_are_healthy(stores):
    assert {name: child.state for name, child in children(stores).items()} == dict.fromkeys(
        ("postgres", "redis", "milvus"), "healthy"
    )


def test_they_listen_on_loopback_only(stores):
    listening = {}
    for child in children(stores).values():
        sockets = [s for pid in processes.tree(child.pid) for s in psutil.Process(pid).net_connections("all")]
        assert not any(s.laddr for s in sockets if s.family == socket.AF_UNIX)
        ears = {s.laddr for s in sockets if s.status == psutil.CONN_LISTEN}
        listening[child.name] = {(ear.ip.removeprefix("::ffff:"), ear.port) for ear in ears}
    assert listening == {name: {("127.0.0.1", child.port)} for name, child in children(stores).items()}


def test_everything_belongs_to_its_owner_alone(stores):
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in stores.data_dir.iterdir()}
    folders = {path.name for path in stores.data_dir.iterdir() if path.is_dir()}
    assert stat.S_IMODE(stores.data_dir.stat().st_mode) == 0o700
    assert modes == {name: 0o700 if name in folders else 0o600 for name in modes}
    logs = {stat.S_IMODE(path.stat().st_mode) for path in (stores.data_dir / "logs").iterdir()}
    assert logs == {0o600}


def test_secrets_are_in_no_command_line(stores):
    secrets = list(stores.secrets.model_dump().values())
    for child in children(stores).values():
        for pid in processes.tree(child.pid):
            assert not any(secret in " ".join(psutil.Process(pid).cmdline()) for secret in secrets)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes the account")
def test_postgres_does_not_run_as_root(stores):
    tree = processes.tree(children(stores)["postgres"].pid)
    assert len(tree) > 3
    assert all(0 not in psutil.Process(pid).uids() for pid in tree)
    assert (stores.data_dir / "postgres").stat().st_uid == psutil.Process(children(stores)["postgres"].pid).uids().real


def test_postgres_wants_the_password(stores):
    wrong = conninfo(stores.postgres_port, "0" * 48)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)
    with psycopg.connect(stores.superuser_url) as connection:
        rules = connection.execute("SELECT type, address, auth_method FROM pg_hba_file_rules").fetchall()
    assert rules == [("host", "127.0.0.1", "scram-sha-256")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("password_encryption", "scram-sha-256"),
        ("shared_buffers", "64MB"),
        ("unix_socket_directories", ""),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("TimeZone", "UTC"),
    ],
)
def test_postgres_is_set_to_be_durable_and_small(stores, name, value):
    assert setting(stores, name) == value


def test_redis_wants_the_password_and_forgets_nothing(stores):
    with redis.Redis(port=children(stores)["redis"].port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    with redis.Redis.from_url(stores.redis_url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}


async def test_a_folder_is_held_by_one_process(stores):
    with pytest.raises(Conflict):
        await start_stores(stores.data_dir)


async def until_again(stores, name, restarts, eventually):
    await eventually(lambda: (c := children(stores)[name]).restarts == restarts and c.state == "healthy")


async def test_postgres_killed_with_its_backends_comes_back_with_what_was_committed(stores, eventually):
    with psycopg.connect(stores.superuser_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS x")
        connection.commit()
        before = processes.tree(children(stores)["postgres"].pid)
        os.kill(children(stores)["postgres"].pid, signal.SIGKILL)
        await until_again(stores, "postgres", 1, eventually)
    assert processes.alive(before) == {}
    with psycopg.connect(stores.superuser_url) as connection:
        assert connection.execute("SELECT x FROM kept").fetchall() == [(1,)]


async def test_a_second_start_finds_everything(tmp_path):
    first = await start_stores(tmp_path / "data")
    try:
        with psycopg.connect(first.superuser_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS x")
        with redis.Redis.from_url(first.redis_url) as client:
            client.set("kept", "yes")
    finally:
        await first.stop()
    # What a reboot leaves: the number of a dead postmaster that another process of the same account has now.
    account = unprivileged_account()
    words = {"user": account.uid} if account else {}
    other = await asyncio.create_subprocess_exec("/bin/sleep", "600", **words)
    (tmp_path / "data" / "postgres" / "postmaster.pid").write_text(f"{other.pid}\n{tmp_path}/data/postgres\n")
    try:
        second = await start_stores(tmp_path / "data")
    finally:
        other.kill()
        await other.wait()
    try:
        assert (second.superuser_url, second.redis_url, second.milvus_uri, second.secrets) == (
            first.superuser_url,
            first.redis_url,
            first.milvus_uri,
            first.secrets,
        )
        with psycopg.connect(second.superuser_url) as connection:
            assert connection.execute("SELECT x FROM kept").fetchall() == [(1,)]
        with redis.Redis.from_url(second.redis_url) as client:
            assert client.get("kept") == b"yes"
    finally:
        await second.stop()
    assert not processes.working_in(tmp_path / "data" / "postgres")


async def test_a_start_that_fails_leaves_nothing_and_frees_the_folder(tmp_path):
    data_dir = tmp_path / "data"
    await (await start_stores(data_dir)).stop()
    (data_dir / "postgres" / "postgresql.conf").write_text("no_such_setting = on\n")
    with pytest.raises(Exception, match="postgres exited with status 1") as failure:
        await start_stores(data_dir)
    assert any("no_such_setting" in line for line in failure.value.tail)
    assert not (data_dir / "run.json").exists()
    with pytest.raises(Exception, match="postgres exited with status 1"):  # and not: another process holds it
        await start_stores(data_dir)
