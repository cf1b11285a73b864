"""Postgres 15 and PgBouncer in front of it, in transaction mode."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from signal import Signals

from service.local.account import Account, private_file, private_folder
from service.local.health import PostgresProbe
from service.local.ports import LOOPBACK
from service.local.postgres import SUPERUSER, Edition
from service.local.spec import ChildSpec
from service.servers.programs import Found

MAJOR = 15
LOCALE = ("--locale", "C.UTF-8")
MANY = {"max_connections": "150"}


def postgres15(program: Found) -> Edition:
    """Return the edition for `service.local.postgres.postgres_child`."""
    return Edition(MAJOR, program.path.parent, MANY, LOCALE, program.environment())


def pgbouncer_child(
    data_dir: Path,
    ports: tuple[int, int],
    password: str,
    account: Account | None,
    program: Found,
    env: Mapping[str, str],
) -> ChildSpec:
    """Describe the pooler. It asks Postgres for the roles' passwords, so that every role can log in through it.

    Args:
        data_dir: its settings lie in `pgbouncer` below it.
        ports: its own, and that of Postgres.
        password: of the superuser, as whom it asks.
        account: whom to run as; None when the supervisor is not root, as which it refuses to run.
        program: `pgbouncer`.
        env: environment of native children.
    """
    folder = data_dir / "pgbouncer"

    async def before() -> None:
        private_folder(folder, account)
        private_file(folder / "pgbouncer.ini", configuration(folder, *ports), account)
        private_file(folder / "users.txt", f'"{SUPERUSER}" "{password}"\n', account)

    return ChildSpec(
        name="pgbouncer",
        argv=(str(program.path), str(folder / "pgbouncer.ini")),
        log=data_dir / "logs" / "pgbouncer.log",
        probe=PostgresProbe(LOOPBACK, ports[0], SUPERUSER),
        env={**env, **program.environment()},
        port=ports[0],
        account=account,
        before=before,
        stop_signal=Signals.SIGINT,  # waits for open transactions
        death_signal=Signals.SIGTERM,
        grace_s=5.0,
    )


def configuration(folder: Path, port: int, postgres_port: int) -> str:
    """Return pgbouncer.ini: every database, transaction mode, passwords by auth_query."""
    lines = (
        "[databases]",
        f"* = host={LOOPBACK} port={postgres_port} auth_user={SUPERUSER}",
        "[pgbouncer]",
        f"listen_addr = {LOOPBACK}",
        f"listen_port = {port}",
        "unix_socket_dir =",
        "auth_type = scram-sha-256",
        f"auth_file = {folder / 'users.txt'}",
        f"admin_users = {SUPERUSER}",
        "pool_mode = transaction",
        "max_client_conn = 1000",
        "default_pool_size = 20",
        "max_db_connections = 60",
    )
    return "\n".join(lines) + "\n"
