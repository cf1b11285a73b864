"""OpenSearch as a set of jars: one node, loopback only, without the security plugin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from service.local.account import private_file, private_folder
from service.local.health import HttpProbe
from service.local.ports import LOOPBACK
from service.local.spec import ChildSpec

MAIN = "org.codelibs.opensearch.runner.OpenSearchRunner"
HEAP = "512m"
PORTS = range(9201, 9300)
"""The runner takes no others."""
CONFIGURATION = """# Written at every start. What counts is the room that is left, not its share of a disk with
# other things on it: by default a node whose disk is nine tenths full takes no new index.
cluster.routing.allocation.disk.watermark.low: 2gb
cluster.routing.allocation.disk.watermark.high: 1gb
cluster.routing.allocation.disk.watermark.flood_stage: 500mb
"""
READY = "/_cluster/health?wait_for_status=yellow&timeout=2s"


def opensearch_child(data_dir: Path, name: str, port: int, jars: Path, java: Path, env: Mapping[str, str]) -> ChildSpec:
    """Describe a node.

    Args:
        data_dir: its data lie in a folder of its name below it.
        name: of the child.
        port: of HTTP, on loopback.
        jars: folder of the server's jars.
        java: the program.
        env: environment of native children.
    """
    folder = data_dir / name

    async def before() -> None:
        configured = folder / "node_1" / "config"
        for path in (folder, folder / "tmp", configured):
            private_folder(path)
        private_file(configured / "opensearch.yml", CONFIGURATION)

    options = (f"-Xms{HEAP}", f"-Xmx{HEAP}", "-XX:+UseSerialGC", f"-Djava.io.tmpdir={folder / 'tmp'}")
    # The runner listens on the port after its base.
    words = ("-basePath", str(folder), "-numOfNode", "1", "-baseHttpPort", str(port - 1), "-clusterName", name)
    return ChildSpec(
        name=name,
        argv=(str(java), *options, "-cp", f"{jars}/*", MAIN, *words, "-useLogger"),
        log=data_dir / "logs" / f"{name}.log",
        probe=HttpProbe(LOOPBACK, port, READY),
        env=env,
        port=port,
        before=before,
        cwd=folder,
        grace_s=20.0,
        start_timeout_s=180.0,
    )
