"""An S3 server of a test's own, which it may kill, start again, or give too little room."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from service.local.ports import LOOPBACK, free_port
from tenants.settings import ObjectSettings

BUCKET = "originals"
KEY, SECRET = "tessera-tests", "only-for-the-tests-of-tessera"


@dataclass
class S3Server:
    """A versitygw on a folder; each folder below it is a bucket."""

    program: str
    folder: Path
    port: int = field(default_factory=free_port)
    before: Sequence[str] = ()
    """Words before the command, which make the folder a small file system."""
    _process: subprocess.Popen[bytes] | None = None

    def start(self, *words: str) -> None:
        """Start and wait until it answers."""
        users = self.folder.with_name(f"{self.folder.name}-users")  # without it an unknown key is answered 404
        users.mkdir(parents=True, exist_ok=True)
        words = ("--iam-dir", str(users), *words)
        bucket = f'mkdir -p "$0/{BUCKET}" && exec "$@"'
        command = [self.program, "--port", f"{LOOPBACK}:{self.port}", "--quiet", *words, "posix", str(self.folder)]
        self._process = subprocess.Popen(
            [*self.before, "sh", "-c", bucket, str(self.folder), *command],
            env={**os.environ, "ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(200):
            try:
                httpx.get(f"http://{LOOPBACK}:{self.port}/", timeout=1)
            except httpx.TransportError:
                assert self._process.poll() is None, "the S3 server ended"
                time.sleep(0.05)
            else:
                return
        raise AssertionError("the S3 server does not listen")

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def settings(self, port: int | None = None, **other: str) -> ObjectSettings:
        """Return how it is reached, through a proxy at `port`; impatiently, so that a test need not wait."""
        endpoint = f"http://{LOOPBACK}:{port or self.port}"
        given = {"url": f"s3://{BUCKET}", "endpoint": endpoint, "access_key_id": KEY, "secret_access_key": SECRET}
        return ObjectSettings.model_validate({**given, "timeout_s": 2, "retries": 1, "retry_s": 1} | other)
