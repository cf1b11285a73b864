"""A real Milvus server of a test's own, which it may kill, start again, and configure otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from service.local.child import Running, spawn
from service.local.ports import free_port
from service.local.settings import native_environment
from service.servers.cache import Cache
from service.servers.fetched import Fetched
from service.servers.milvus import TOKEN, milvus_child
from service.settings import Settings
from shards.settings import MilvusSettings


class RealMilvus:
    """A server on a port and a data folder. `changed`: parts of its configuration, and what is to stand there."""

    def __init__(self, folder: Path, changed: Mapping[str, str] | None = None) -> None:
        self.port, self._folder, self._changed = free_port(), folder, changed or {}
        (folder / "logs").mkdir(parents=True)
        package = Fetched(Cache(Settings().servers.cache_folder(), print)).milvus()
        self._spec = milvus_child(folder, self.port, free_port(), package, native_environment())
        self._running: Running | None = None

    @property
    def settings(self) -> MilvusSettings:
        """How it is reached."""
        return MilvusSettings(uri=f"http://127.0.0.1:{self.port}", token=SecretStr(TOKEN))

    async def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        assert self._spec.before is not None
        await self._spec.before()
        configuration = self._folder / "milvus" / "configs" / "milvus.yaml"
        text = configuration.read_text(encoding="utf-8")
        for line, other in self._changed.items():
            assert line in text, line
            text = text.replace(line, other)
        configuration.write_text(text, encoding="utf-8")
        self._running = spawn(self._spec)
        async with asyncio.timeout(self._spec.start_timeout_s):
            while not await self._ready():
                assert not self._running.ending, self._running.ending
                await asyncio.sleep(0.2)

    async def kill(self) -> None:
        """End it as a crash does."""
        if self._running is not None:
            await self._running.sweep()
            await self._running.exited.wait()
            self._running = None

    async def _ready(self) -> bool:
        try:
            return await self._spec.probe.ready()
        except (OSError, TimeoutError):
            return False


class Authority:
    """Signs certificates for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of a test")])
        mine = self._certificate(self._name, self._key).add_extension(x509.BasicConstraints(True, 0), critical=True)
        self.pem = folder / "authority.pem"
        self.pem.write_bytes(mine.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def signed(self, name: str) -> tuple[Path, Path]:
        """Return the files of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        here = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ip_address("127.0.0.1"))])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = self._certificate(subject, key).add_extension(here, critical=False).sign(self._key, hashes.SHA256())
        files = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        files[1].write_bytes(key.private_bytes(*form))
        return files

    def _certificate(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
        return made.not_valid_after(now + timedelta(days=1))
