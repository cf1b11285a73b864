"""S3: versitygw over a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from service.local.account import private_folder
from service.local.health import HttpProbe
from service.local.ports import LOOPBACK
from service.local.spec import ChildSpec

BUCKET, ACCESS_KEY_ID, REGION = "tessera", "tessera", "us-east-1"


def s3_child(data_dir: Path, port: int, secret: str, program: Path, env: Mapping[str, str]) -> ChildSpec:
    """Describe the server; it begins with one bucket.

    Args:
        data_dir: each bucket is a folder below `s3` in it.
        port: on loopback.
        secret: access key of the root account.
        program: `versitygw`.
        env: environment of native children.
    """
    folder = data_dir / "s3"

    async def before() -> None:
        for path in (folder, folder / BUCKET):
            private_folder(path)

    return ChildSpec(
        name="s3",
        argv=(
            str(program),
            "--port",
            f"{LOOPBACK}:{port}",
            "--region",
            REGION,
            "--quiet",
            "--health",
            "/health",
            "posix",
            str(folder),
        ),
        log=data_dir / "logs" / "s3.log",
        probe=HttpProbe(LOOPBACK, port, "/health"),
        env={**env, "ROOT_ACCESS_KEY": ACCESS_KEY_ID, "ROOT_SECRET_KEY": secret},
        port=port,
        before=before,
    )
