"""Postgres servers of a test's own, whose roles, settings and databases are nobody else's."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from service.database import prepare
from service.local.account import private_file, private_folder, unprivileged_account
from service.local.ports import free_port
from service.local.postgres import binaries, role_url
from tenants.roles import APP, OWNER, WORKER, RolePasswords, ensure_roles
from tests.programs import Program, given
from tests.servers import server

PASSWORD = "s3cret-of-the-cluster"
PASSWORDS = RolePasswords(owner="owner-word", app="app-word", worker="worker-word")
_DEBIAN = Path("/usr/lib/postgresql/15/bin/postgres")
_QUICK = {"fsync": "off", "shared_buffers": "16MB", "max_connections": "60", "unix_socket_directories": ""}
_TIMEOUT_S = 30.0


@dataclass
class Cluster:
    """A server with its data in a folder of its own."""

    program: Program
    """`postgres`, with `initdb` beside it."""
    folder: Path
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        """Run initdb."""
        private_folder(self.folder, unprivileged_account())
        private_file(self.folder / "password", PASSWORD, unprivileged_account())
        words = ["-U", "postgres", "--pwfile", str(self.folder / "password"), "--auth", "scram-sha-256", "-E", "UTF8"]
        words += ["--locale", "C", "--no-sync", "-D", str(self.folder / "data")]
        self.program.beside("initdb").run(words, unprivileged_account())

    def start(self, **settings: str) -> None:
        """Start it and wait until it lets the superuser in."""
        given = {**_QUICK, "listen_addresses": "127.0.0.1", "port": str(self.port), **settings}
        words = [word for name, value in given.items() for word in ("-c", f"{name}={value}")]
        words = ["-D", str(self.folder / "data"), *words]
        self._process = self.program.start(words, self.folder / "log", unprivileged_account())
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            try:
                psycopg.connect(self.superuser(), connect_timeout=2).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_TIMEOUT_S)

    def superuser(self, database: str = "postgres") -> str:
        """Return the libpq URL of the superuser."""
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def url(self, role: str, password: str, database: str) -> str:
        """Return the SQLAlchemy URL of a role."""
        return role_url(self.port, role, password, database)

    def prepared(self, database: str) -> dict[str, str]:
        """Make the roles and a migrated database; return the URLs by role."""
        prepare(self.superuser(), PASSWORDS, database)
        return self._urls(database)

    def made(self, database: str) -> dict[str, str]:
        """Make the roles and an empty database; return the URLs by role."""
        ensure_roles(self.superuser(), database, PASSWORDS)
        return self._urls(database)

    def _urls(self, database: str) -> dict[str, str]:
        words = {APP: PASSWORDS.app, WORKER: PASSWORDS.worker, OWNER: PASSWORDS.owner, "postgres": PASSWORD}
        return {role: self.url(role, word, database) for role, word in words.items()}


@contextmanager
def cluster(version: int, **settings: str) -> Iterator[Cluster]:
    """Run a server of one of the versions that are tested: 18 from the wheel, 15 where there are servers."""
    if version == 15:
        program = given(server("postgres15"), _DEBIAN)
        if program is None or not program.path.exists():
            pytest.fail(f"There is no Postgres 15 at {_DEBIAN}.")
    else:
        program = Program(binaries() / "postgres")
    made = Cluster(program, Path(tempfile.mkdtemp(prefix="cluster-")))
    try:
        made.create()
        made.start(**settings)
        yield made
    finally:
        made.stop()
        shutil.rmtree(made.folder)


@contextmanager
def replica_of(primary: Cluster) -> Iterator[Cluster]:
    """Run a server that follows another: its copy, in recovery for as long as it runs."""
    made = Cluster(primary.program, Path(tempfile.mkdtemp(prefix="replica-")))
    private_folder(made.folder, unprivileged_account())
    with psycopg.connect(primary.superuser(), autocommit=True) as connection:
        connection.execute("SELECT pg_backup_start('replica', true)")
        shutil.copytree(primary.folder / "data", made.folder / "data", ignore=shutil.ignore_patterns("postmaster.*"))
        row = connection.execute("SELECT labelfile FROM pg_backup_stop(false)").fetchone()
    (made.folder / "data" / "backup_label").write_text(row[0] if row else "")
    (made.folder / "data" / "standby.signal").touch()
    if owner := unprivileged_account():
        for path in (made.folder / "data", *(made.folder / "data").rglob("*")):
            os.chown(path, owner.uid, owner.gid)
    try:
        made.start(primary_conninfo=primary.superuser(), hot_standby="on")
        yield made
    finally:
        made.stop()
        shutil.rmtree(made.folder)
