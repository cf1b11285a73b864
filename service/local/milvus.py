"""Milvus Lite as a server."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from signal import Signals

from service.local.account import private_folder
from service.local.health import GrpcProbe
from service.local.ports import LOOPBACK
from service.local.spec import ChildSpec

MEMORY = {"MILVUS_LITE_MEMTABLE_MEMORY_LIMIT_BYTES": str(1024 * 1024)}
"""A row that is not flushed yet costs a search about forty times one that is; the server's own limit is 128 MB."""
SERVER = "service.local.lite_server"


def milvus_child(data_dir: Path, port: int, env: Mapping[str, str]) -> ChildSpec:
    """Describe the server. It closes its files on SIGINT only; SIGTERM would end it like a crash."""
    folder = data_dir / "milvus"

    async def before() -> None:
        private_folder(folder)

    return ChildSpec(
        name="milvus",
        argv=(
            sys.executable,
            "-m",
            SERVER,
            "server",
            "--data-dir",
            str(folder),
            "--host",
            LOOPBACK,
            "--port",
            str(port),
        ),
        log=data_dir / "logs" / "milvus.log",
        probe=GrpcProbe(LOOPBACK, port),
        env={**env, **MEMORY},
        port=port,
        before=before,
        stop_signal=Signals.SIGINT,
        death_signal=Signals.SIGINT,
        grace_s=15.0,
    )


def milvus_uri(port: int) -> str:
    """Return the address for clients."""
    return f"http://{LOOPBACK}:{port}"
