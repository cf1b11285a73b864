"""A redis-server of a test's own: with TLS and an ACL user when asked for, and one that may be killed and come back."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from service.local.ports import free_port
from service.local.redis import binary
from tests.certificates import certify
from tests.programs import Program, given
from tests.servers import server

ADMIN = "adm1n-s3cret"
_PATHS = "/usr/bin:/usr/local/bin"
"""Not those of this virtual environment, which has the bundled one."""


@dataclass
class RedisServer:
    """One process that keeps nothing on disk: it comes back empty."""

    program: Program
    folder: Path
    port: int
    tls: bool
    acl: str
    cluster: bool = False
    _process: subprocess.Popen[bytes] | None = None

    @property
    def login(self) -> str:
        """The administrator's."""
        return f":{ADMIN}"

    @property
    def ca_file(self) -> str:
        """The authority that signed its certificate."""
        return str(self.folder / "ca.pem")

    def url(self, login: str = f":{ADMIN}") -> str:
        """Return its address with a login."""
        return f"{'rediss' if self.tls else 'redis'}://{login}@127.0.0.1:{self.port}/0"

    def client(self) -> Redis:
        """Return the administrator's client."""
        return Redis.from_url(self.url(), **({"ssl_ca_certs": self.ca_file} if self.tls else {}))

    def start(self) -> None:
        """Start it and wait until it answers."""
        lines = ["bind 127.0.0.1", 'save ""', "appendonly no", f"dir {self.folder}"]
        lines.append(f"user default on >{ADMIN} ~* &* +@all")
        lines += [self.acl] if self.acl else []
        lines += ["cluster-enabled yes"] if self.cluster else []
        if self.tls:
            lines += ["port 0", f"tls-port {self.port}", "tls-auth-clients no", f"tls-ca-cert-file {self.ca_file}"]
            lines += [f"tls-cert-file {self.folder / 'server.pem'}", f"tls-key-file {self.folder / 'server.key'}"]
        else:
            lines.append(f"port {self.port}")
        (self.folder / "redis.conf").write_text("\n".join(lines) + "\n")
        self._process = self.program.start([str(self.folder / "redis.conf")], self.folder / "log")
        for _ in range(500):
            with suppress(RedisError), self.client() as client:
                client.ping()
                return
            time.sleep(0.02)
        raise AssertionError((self.folder / "log").read_text())

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def redis_server(*, tls: bool = False, acl: str = "", cluster: bool = False) -> Iterator[RedisServer]:
    """Run a server; with TLS it is Debian's, for the bundled one is built without. As a cluster it has one node."""
    program = given(server("redis"), shutil.which("redis-server", path=_PATHS)) if tls else Program(binary())
    if program is None:
        pytest.fail("There is no redis-server with TLS.")
    folder = Path(tempfile.mkdtemp(prefix="redis-"))
    made = RedisServer(program, folder, free_port(), tls, acl, cluster)
    if tls:
        certify(folder)
    try:
        made.start()
        yield made
    finally:
        made.kill()
        shutil.rmtree(folder)
