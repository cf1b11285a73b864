"""A PgBouncer of a test's own, in transaction mode, that may be killed and started again."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from service.local.account import private_file, private_folder, unprivileged_account
from service.local.ports import free_port
from tests.programs import given
from tests.servers import server

_PATHS = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
_TIMEOUT_S = 10.0


class PgBouncer:
    """One process before one server; `size` connections of the server for each role and database."""

    def __init__(self, folder: Path, port: int, passwords: dict[str, str], size: int) -> None:
        found = given(server("pgbouncer"), shutil.which("pgbouncer", path=_PATHS))
        if found is None:
            pytest.fail("There is no program pgbouncer.")
        self.port = free_port()
        self.folder = folder
        self._program = found
        owner = unprivileged_account()
        private_folder(folder, owner)
        users = "".join(f'"{role}" "{word}"\n' for role, word in passwords.items())
        private_file(folder / "users.txt", users, owner)
        private_file(
            folder / "pgbouncer.ini",
            f"[databases]\n* = host=127.0.0.1 port={port}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {folder / 'users.txt'}\n"
            f"pool_mode = transaction\ndefault_pool_size = {size}\nmax_client_conn = 200\n",
            owner,
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        words = ["-q", str(self.folder / "pgbouncer.ini")]
        self._process = self._program.start(words, self.folder / "log", unprivileged_account())
        for _ in range(int(_TIMEOUT_S / 0.02)):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise AssertionError((self.folder / "log").read_text())

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Kill it and forget its files."""
        self.kill()
        shutil.rmtree(self.folder)
