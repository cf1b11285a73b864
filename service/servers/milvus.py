"""Milvus standalone with its embedded etcd, in a network of its own: it would listen on all addresses."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from service.local.account import private_folder
from service.local.child import run_step
from service.local.health import HttpProbe
from service.local.ports import LOOPBACK
from service.local.spec import ChildSpec, StepSpec

ENCLOSURE = Path(__file__).with_name("enclosure.py")
SCRIPT = (sys.executable, "-I", "-S")
INNER_PORT, INNER_HEALTH = 19530, 9091
TOKEN = "root:Milvus"  # noqa: S105  what every Milvus begins with; only this machine reaches this one
# Busy, it may not get to renew its lease with its own etcd within the usual 30 s, and would shut down for good. Longer
# leases have their price: after a restart it refuses to make collections until those of its last life have run out.
CONFIGURE = """
import sys
sys.path.insert(0, sys.argv[1])
from milvus import MilvusServerConfig
config = MilvusServerConfig(data_dir=sys.argv[2])
config.set("authorization_enabled", True)
config.set("common.session.ttl", 60)
config.resolve()
"""
MEMORY = {"GOMEMLIMIT": "1GiB"}


def milvus_child(data_dir: Path, port: int, health_port: int, package: Path, env: Mapping[str, str]) -> ChildSpec:
    """Describe the server; users must log in (`TOKEN`).

    Args:
        data_dir: its data lie in `milvus` below it.
        port: on loopback, of gRPC.
        health_port: on loopback, of its health and metrics.
        package: folder of the wheel with the programs unpacked in `bin`.
        env: environment of native children.
    """
    folder, log = data_dir / "milvus", data_dir / "logs" / "milvus.log"

    async def before() -> None:
        private_folder(folder)
        words = (*SCRIPT, "-c", CONFIGURE, str(package), str(folder))
        await run_step(StepSpec("milvus.yaml", words, log, env=env))

    forwards = (f"--forward={port}={INNER_PORT}", f"--forward={health_port}={INNER_HEALTH}")
    places = {"LD_LIBRARY_PATH": str(package / "bin"), "MILVUS_RUN_DIR": str(folder / "run")}
    return ChildSpec(
        name="milvus",
        argv=(*SCRIPT, str(ENCLOSURE), *forwards, "--", str(package / "bin" / "milvus"), "run", "standalone"),
        log=log,
        probe=HttpProbe(LOOPBACK, health_port, "/healthz"),
        env={**env, **MEMORY, **places, "DEPLOY_MODE": "STANDALONE", "METRICS_PORT": str(INNER_HEALTH)},
        port=port,
        cwd=folder,
        before=before,
        grace_s=15.0,
        start_timeout_s=120.0,
    )
