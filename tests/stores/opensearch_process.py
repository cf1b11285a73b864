"""An OpenSearch server for one test, which may kill and restart it, and a gate in front of one that misbehaves."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAIN = "org.codelibs.opensearch.runner.OpenSearchRunner"
PORTS = range(9201, 9300)
"""The runner takes no others."""


@dataclass
class OpenSearchProcess:
    """A node on a fixed port and data folder."""

    folder: Path
    port: int
    java: str
    jars: str
    _process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and wait until every shard that there was is back."""
        where = ["-basePath", str(self.folder), "-numOfNode", "1", "-baseHttpPort", str(self.port - 1)]
        self._process = subprocess.Popen(
            [self.java, "-Xms384m", "-Xmx384m", "-XX:+UseSerialGC", "-cp", f"{self.jars}/*", MAIN, *where],
            stdin=subprocess.PIPE,  # it ends with its input
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(900):
            assert self._process.poll() is None, "the server ended"
            if self._is_up():
                return
            time.sleep(0.2)
        raise AssertionError("the server does not answer")

    def pause(self) -> None:
        """Let it hang: it takes connections and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process = None

    def stop(self) -> None:
        """End it whatever its state."""
        if self._process is not None:
            self.kill()

    def _is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/_cluster/health?timeout=1s", timeout=2) as answer:
                health = json.load(answer)
        except (OSError, urllib.error.URLError):
            return False
        return health["status"] != "red" and not health["initializing_shards"]


def free_port() -> int:
    """Return a port of those that the runner takes, from the upper end, where the shared servers are not."""
    for port in reversed(PORTS):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


@dataclass
class FakeServer:
    """Speaks HTTP and answers what it was told to: (status, body) by how the path begins, or the method and the path,
    or by the last part of the path where that begins with `_`; `*` for every other."""

    answers: dict[str, tuple[int, Any]]
    seen: list[str] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    _server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> FakeServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        method, path, _ = head.split(" ", 2)
        length = next((int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0)
        self.bodies.append((await reader.readexactly(length)).decode())
        self.seen.append(f"{method} {path}")
        asked = (path, f"{method} {path}", path.partition("?")[0].rpartition("/")[2])
        wanted = next((key for key in self.answers if key != "*" and any(one.startswith(key) for one in asked)), "*")
        status, said = self.answers[wanted]
        kind, text = ("text/plain", said) if isinstance(said, str) else ("application/json", json.dumps(said))
        body = text.encode()
        lines = [f"HTTP/1.1 {status} Said", f"content-type: {kind}", f"content-length: {len(body)}"]
        writer.write("\r\n".join([*lines, "connection: close", "", ""]).encode() + body)
        await writer.drain()
        writer.close()
