"""A redis-server of a test's own: with TLS and an ACL user when asked for, and one that may be killed and come back."""

from __future__ import annotations

import datetime
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis import Redis
from redis.exceptions import RedisError

from service.local.ports import free_port
from service.local.redis import binary
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


def certify(folder: Path) -> None:
    """Write an authority and the certificate of a server on loopback into a folder."""
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def builder(subject: str, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (subject, "Test authority")]
        begun = x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(public)
        dated = begun.not_valid_before(now - day).not_valid_after(now + day)
        return dated.serial_number(x509.random_serial_number())

    ca = builder("Test authority", ca_key.public_key()).add_extension(x509.BasicConstraints(True, None), critical=True)
    own = builder("127.0.0.1", key.public_key()).add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "ca.pem").write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    (folder / "server.pem").write_bytes(own.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    (folder / "server.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    (folder / "server.key").chmod(0o600)
