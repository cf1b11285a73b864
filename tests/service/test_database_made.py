"""`tessera db`: roles and database made once or twice or by two at once, by a superuser or by a managed server's
administrator; migrations that wait, are counted, and refuse a pooler."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from alembic import command
from sqlalchemy import make_url

from migrations.head import HEAD
from migrations.run import MigrationFailed, alembic_config, upgrade
from migrations.runner import Run
from migrations.state import schema_state
from service.database import initialise
from service.local.settings import python_environment
from tenants.db import Database
from tenants.errors import Misconfigured, Unavailable
from tenants.postgres_check import check_postgres
from tenants.roles import APP, OWNER, WORKER, RolePasswords, ensure_roles
from tenants.settings import DatabaseSettings
from tests.clusters import PASSWORD, cluster
from tests.pgbouncer import PgBouncer

if TYPE_CHECKING:
    from tests.clusters import Cluster

_TESSERA = (sys.executable, "-c", "from service.cli.main import main; main()")
_ROLES = (APP, WORKER, OWNER)
_NAMES = ("TESSERA_DATABASE_URL", "TESSERA_DATABASE_WORKER_URL", "TESSERA_DATABASE_OWNER_URL")


def tessera(*words: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_TESSERA, *words], env=python_environment(settings), input=stdin, capture_output=True, text=True, check=False
    )


def exports(text: str) -> dict[str, str]:
    lines = [line.removeprefix("export ") for line in text.splitlines() if line.startswith("export ")]
    return {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}


@pytest.fixture
def fresh(any_postgres: Cluster) -> Iterator[Cluster]:
    """A server without any of the roles."""
    forget(any_postgres)
    yield any_postgres
    forget(any_postgres)


def forget(cluster: Cluster) -> None:
    """Drop every database that some test of this process made, whatever its name, and then the roles that own them."""
    mine = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'"
    with psycopg.connect(cluster.superuser(), autocommit=True) as connection:
        for (name,) in connection.execute(mine).fetchall():
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        for role in (APP, WORKER, OWNER, "manager"):
            if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone():
                connection.execute(f"DROP OWNED BY {role} CASCADE")
                connection.execute(f"DROP ROLE {role}")


async def accepted(urls: dict[str, str]) -> None:
    for name in _NAMES[:2]:
        database = Database(urls[name], DatabaseSettings(), setting=name)
        found = await check_postgres(database, HEAD)
        assert (found.revision, found.pooled) == (HEAD, False)
        await database.aclose()


async def test_the_commands_make_a_database_that_the_service_accepts(fresh: Cluster) -> None:
    given = {"TESSERA_SUPERUSER_URL": fresh.superuser()}
    first = tessera("db", "init", "--database", "made", **given)
    assert first.returncode == 0, first.stderr
    urls = exports(first.stdout)
    assert tuple(sorted(urls)) == tuple(sorted(_NAMES))
    assert PASSWORD not in first.stdout + first.stderr
    pending = tessera("db", "status", **urls)
    assert (pending.returncode, f"pending  {HEAD}" in pending.stdout) == (1, True)
    assert "tessera db upgrade" in pending.stderr
    done = tessera("db", "upgrade", **urls)
    assert done.returncode == 0, done.stderr
    assert [line[:4] for line in done.stdout.splitlines()][:2] == ["0001", "0002"]
    assert upgrade(urls[_NAMES[2]]) == []
    assert schema_state(urls[_NAMES[2]]).pending == []
    await accepted(urls)
    again = tessera("db", "init", "--superuser-url-file", "-", stdin=fresh.superuser(), **urls)
    assert (again.returncode, exports(again.stdout)) == (0, {})
    await accepted(urls)


async def test_passwords_are_those_of_the_urls(fresh: Cluster) -> None:
    urls = dict(zip(_NAMES, [fresh.url(role, secrets.token_hex(8), "made") for role in _ROLES], strict=True))
    settings = DatabaseSettings(url=urls[_NAMES[0]], worker_url=urls[_NAMES[1]], owner_url=urls[_NAMES[2]])
    assert initialise(fresh.superuser(), settings).exports == {}
    upgrade(urls[_NAMES[2]])
    await accepted(urls)


async def test_a_url_without_a_password_leaves_the_roles_as_it_is(fresh: Cluster) -> None:
    """It logs in by a certificate, .pgpass or a cloud's token."""
    urls = dict(zip(_NAMES, [fresh.url(role, secrets.token_hex(8), "made") for role in _ROLES], strict=True))
    initialise(fresh.superuser(), DatabaseSettings(url=urls[_NAMES[0]], worker_url=urls[_NAMES[1]]))
    bare = re.sub(r":\w+@", "@", urls[_NAMES[0]])
    said = initialise(fresh.superuser(), DatabaseSettings(url=bare)).done
    assert f"role {APP} exists, its password stays" in said
    psycopg.connect(urls[_NAMES[0]].replace("+psycopg", "")).close()


def test_a_url_without_a_password_makes_a_role_without_one(fresh: Cluster) -> None:
    bare = re.sub(r":\w+@", "@", fresh.url(APP, "x", "made"))
    made = initialise(fresh.superuser(), DatabaseSettings(url=bare))
    assert (f"role {APP} made, without a password" in made.done, sorted(made.exports)) == (True, sorted(_NAMES[1:]))
    with psycopg.connect(fresh.superuser()) as connection:
        row = connection.execute("SELECT rolcanlogin, rolpassword FROM pg_authid WHERE rolname = %s", (APP,)).fetchone()
    assert row == (True, None)


@pytest.mark.parametrize("encryption", ["scram-sha-256", "md5"])
def test_no_password_reaches_the_servers_log_and_each_lets_its_role_in(fresh: Cluster, encryption: str) -> None:
    words = [secrets.token_hex(8) for _ in _ROLES]
    settings = DatabaseSettings(url=fresh.url(APP, words[0], "made"), worker_url=fresh.url(WORKER, words[1], "made"))
    with psycopg.connect(fresh.superuser(), autocommit=True) as connection:
        connection.execute("CREATE ROLE manager LOGIN PASSWORD 'm'")
        connection.execute("ALTER ROLE postgres SET log_statement = 'all'")
        connection.execute(f"ALTER ROLE postgres SET password_encryption = '{encryption}'")
        try:
            with pytest.raises(Misconfigured, match="CREATEROLE"):
                initialise(fresh.superuser().replace(f"postgres:{PASSWORD}@", "manager:m@"), settings)
            for _ in range(2):
                initialise(fresh.superuser(), settings)
        finally:
            connection.execute("ALTER ROLE postgres RESET ALL")
    log = (fresh.folder / "log").read_text()
    assert f'CREATE ROLE "{OWNER}"' in log, "the statements are there"
    assert [word for word in words if word in log] == []
    psycopg.connect(settings.url.replace("+psycopg", "")).close()


async def test_two_at_once_both_end_well(fresh: Cluster) -> None:
    urls = dict(zip(_NAMES, [fresh.url(role, "word", "made") for role in _ROLES], strict=True))
    settings = DatabaseSettings(url=urls[_NAMES[0]], worker_url=urls[_NAMES[1]], owner_url=urls[_NAMES[2]])
    with ThreadPoolExecutor(3) as pool:
        for made in [pool.submit(initialise, fresh.superuser(), settings) for _ in range(3)]:
            made.result()
        running = [pool.submit(tessera, "db", "upgrade", **urls) for _ in range(2)]
        ended = [one.result() for one in running]
    assert [process.returncode for process in ended] == [0, 0]
    assert sorted("already" in process.stdout for process in ended) == [False, True]
    await accepted(urls)


async def test_a_managed_servers_administrator_need_not_be_a_superuser(fresh: Cluster) -> None:
    with psycopg.connect(fresh.superuser(), autocommit=True) as connection:
        connection.execute("CREATE ROLE manager LOGIN CREATEROLE CREATEDB PASSWORD 'm'")
    manager = fresh.superuser().replace(f"postgres:{PASSWORD}@", "manager:m@")
    for _ in range(2):
        made = initialise(manager, DatabaseSettings(), "made")
    with psycopg.connect(fresh.superuser(), autocommit=True) as connection:
        [owner] = connection.execute(
            "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'made'"
        ).fetchone() or [None]
        assert owner == OWNER
        assert connection.execute("SELECT pg_has_role('manager', 'tessera_owner', 'USAGE')").fetchone() == (False,)
    assert made.exports == {}


def test_who_may_not_make_roles_is_told_what_it_takes(fresh: Cluster) -> None:
    with psycopg.connect(fresh.superuser(), autocommit=True) as connection:
        connection.execute("CREATE ROLE manager LOGIN PASSWORD 'm'")
    with pytest.raises(Misconfigured, match="CREATEROLE"):
        initialise(fresh.superuser().replace(f"postgres:{PASSWORD}@", "manager:m@"), DatabaseSettings(), "made")


def test_a_server_without_the_locale_gets_another(fresh: Cluster) -> None:
    locales = ("LOCALE 'xx_XX.nowhere'", "LOCALE 'C'")
    ensure_roles(fresh.superuser(), "made", RolePasswords("o", "a", "w"), locales=locales)
    with psycopg.connect(fresh.superuser("made")) as connection:
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)


def test_urls_that_do_not_fit_are_refused(fresh: Cluster) -> None:
    with pytest.raises(Misconfigured, match="is for the role tessera_app"):
        initialise(fresh.superuser(), DatabaseSettings(url=fresh.url("somebody", "x", "made")))
    two = DatabaseSettings(url=fresh.url(APP, "x", "made"), owner_url=fresh.url(OWNER, "x", "made_too"))
    with pytest.raises(Misconfigured, match="several databases"):
        initialise(fresh.superuser(), two)
    with pytest.raises(Misconfigured, match=r"TESSERA_SUPERUSER_URL.*password") as refused:
        initialise(fresh.superuser().replace(PASSWORD, "s3cret"), DatabaseSettings())
    assert "s3cret" not in refused.value.detail


def test_a_migration_that_cannot_lock_its_table_is_tried_again_and_then_says_so(fresh: Cluster) -> None:
    urls = fresh.prepared("made_locked")
    run = Run(urls[OWNER], lock_timeout_s=0.2)
    config = alembic_config(urls[OWNER])
    command.downgrade(config, "0011")
    waits: list[str] = []
    with psycopg.connect(fresh.superuser("made_locked")) as blocking:
        blocking.execute("LOCK TABLE jobs IN ACCESS SHARE MODE")

        def let_go(sentence: str) -> None:
            waits.append(sentence)
            if len(waits) == 2:
                blocking.rollback()

        done = upgrade(replace(run, waits=let_go), pause_s=0.01)
    assert [step.revision for step in done] == ["0012", "0013", HEAD]
    assert len(waits) == 2
    command.downgrade(config, "0011")
    with psycopg.connect(fresh.superuser("made_locked")) as blocking:
        blocking.execute("LOCK TABLE jobs IN ACCESS SHARE MODE")
        with pytest.raises(Unavailable, match="pg_stat_activity"):
            upgrade(run, pause_s=0.01, attempts=2)
    assert schema_state(run.url).revision == "0011"


def test_each_migration_has_its_own_attempts(fresh: Cluster) -> None:
    urls = fresh.prepared("made_locked")
    command.downgrade(alembic_config(urls[OWNER]), "0011")
    tables = ["jobs", "index_generations"]  # of 0012 and of 0014
    with psycopg.connect(fresh.superuser("made_locked")) as blocking:
        blocking.execute(f"LOCK TABLE {tables[0]} IN ACCESS SHARE MODE")

        def move_on(_sentence: str) -> None:
            blocking.rollback()
            del tables[0]
            if tables:
                blocking.execute(f"LOCK TABLE {tables[0]} IN ACCESS SHARE MODE")

        upgrade(Run(urls[OWNER], lock_timeout_s=0.2, waits=move_on), pause_s=0.01, attempts=2)
    assert tables == []


def test_an_owner_that_may_not_migrate_is_told_so(fresh: Cluster) -> None:
    urls = fresh.prepared("made_elsewhere")
    command.downgrade(alembic_config(urls[OWNER]), "0011")
    with psycopg.connect(fresh.superuser("made_elsewhere"), autocommit=True) as connection:
        connection.execute("ALTER TABLE jobs OWNER TO postgres")
    ended = tessera("db", "upgrade", TESSERA_DATABASE_OWNER_URL=urls[OWNER])
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False), ended.stderr
    assert "TESSERA_DATABASE_OWNER_URL" in ended.stderr
    assert "must be owner of" in ended.stderr
    assert ended.stderr.count("\n") == 1
    elsewhere = fresh.made("made_public")[OWNER]
    with psycopg.connect(fresh.superuser("made_public"), autocommit=True) as connection:
        connection.execute("ALTER DATABASE made_public OWNER TO postgres")
        connection.execute(f"GRANT CONNECT ON DATABASE made_public TO {OWNER}")
    with pytest.raises(Misconfigured, match=r"TESSERA_DATABASE_OWNER_URL.*permission denied for schema public"):
        upgrade(elsewhere)


def test_a_server_without_room_is_not_said_to_be_away(fresh: Cluster) -> None:
    urls = fresh.prepared("made_full")
    command.downgrade(alembic_config(urls[OWNER]), "0011")
    full = "BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'; END"
    with psycopg.connect(fresh.superuser("made_full"), autocommit=True) as connection:
        connection.execute(f"CREATE FUNCTION full_disk() RETURNS event_trigger LANGUAGE plpgsql AS $$ {full} $$")
        connection.execute("CREATE EVENT TRIGGER full_disk ON ddl_command_start EXECUTE FUNCTION full_disk()")
        with pytest.raises(MigrationFailed, match=r"was rolled back, .* no room left \(No space left on device"):
            upgrade(urls[OWNER])
        connection.execute("DROP EVENT TRIGGER full_disk")
    assert upgrade(urls[OWNER])[-1].revision == HEAD


@pytest.mark.parametrize("killed", [False, True])
def test_a_migration_that_loses_its_connection_says_so(killed: bool) -> None:
    with cluster(18) as own:
        urls = own.prepared("made_lost")
        command.downgrade(alembic_config(urls[OWNER]), "0011")
        look, blocking = (psycopg.connect(own.superuser("made_lost"), autocommit=one) for one in (True, False))
        blocking.execute("LOCK TABLE jobs IN ACCESS SHARE MODE")
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(upgrade, Run(urls[OWNER], lock_timeout_s=10), attempts=1)
            waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = %s"
            while (row := look.execute(waiting, (OWNER,)).fetchone()) is None:
                assert not running.done()
            if killed:
                os.kill(row[0], signal.SIGKILL)  # by it the server ends every connection
            else:
                look.execute("SELECT pg_terminate_backend(%s)", row)
            with pytest.raises(Unavailable, match="TESSERA_DATABASE_OWNER_URL"):
                running.result(20)
        look.close()
        blocking.close()


def test_migrations_do_not_go_through_a_pooler(postgres15: Cluster) -> None:
    urls = postgres15.prepared("made_pooled")
    pooler = PgBouncer(Path(tempfile.mkdtemp()), postgres15.port, {OWNER: make_url(urls[OWNER]).password or ""}, 2)
    pooler.start()
    try:
        with pytest.raises(Misconfigured, match="TESSERA_DATABASE_OWNER_URL leads to a connection pooler"):
            upgrade(make_url(urls[OWNER]).set(port=pooler.port).render_as_string(hide_password=False))
    finally:
        pooler.close()
