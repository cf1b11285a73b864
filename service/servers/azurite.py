"""Azurite: the blob service of Azure over a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from service.local.account import private_folder
from service.local.health import HttpProbe
from service.local.ports import LOOPBACK
from service.local.spec import ChildSpec

ACCOUNT, CONTAINER = "tessera", "tessera"
REFUSES = 400
"""What it says to a request without an account."""
SCRIPT = Path("node_modules/azurite/dist/src/blob/main.js")


def azurite_child(data_dir: Path, port: int, key: str, node: Path, package: Path, env: Mapping[str, str]) -> ChildSpec:
    """Describe the server. Its containers are made by whoever uses them.

    Args:
        data_dir: its data lie in `azurite` below it.
        port: on loopback.
        key: of the account, base64.
        node: the program.
        package: folder with the installed package.
        env: environment of native children.
    """
    folder = data_dir / "azurite"

    async def before() -> None:
        private_folder(folder)

    words = ("--blobHost", LOOPBACK, "--blobPort", str(port), "--location", str(folder))
    quiet = ("--silent", "--disableTelemetry", "--skipApiVersionCheck")
    return ChildSpec(
        name="azurite",
        argv=(str(node), str(package / SCRIPT), *words, *quiet),
        log=data_dir / "logs" / "azurite.log",
        probe=HttpProbe(LOOPBACK, port, "/", REFUSES),
        env={**env, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{key}"},
        port=port,
        before=before,
        cwd=folder,
    )
