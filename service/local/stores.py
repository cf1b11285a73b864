"""Only the stores, in the foreground of another process: what a test session starts."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from service.local import processes
from service.local.account import unprivileged_account
from service.local.milvus import milvus_child, milvus_uri
from service.local.owner import owned
from service.local.ports import choose_ports
from service.local.postgres import conninfo, postgres_child
from service.local.redis import redis_child, redis_url
from service.local.settings import native_environment, python_environment
from service.local.state import ChildRecord, Installation, Secrets, StackState, forget_stack
from service.local.supervisor import Supervisor

STORES = ("postgres", "redis", "milvus")


@dataclass(frozen=True)
class Stores:
    """Running stores and how to reach them."""

    superuser_url: str = field(repr=False)
    """libpq URL of the superuser on the maintenance database; for `service.database.prepare`."""
    secrets: Secrets
    """Passwords of the three roles, pepper and admin key of this data folder."""
    postgres_port: int
    redis_url: str = field(repr=False)
    milvus_uri: str
    data_dir: Path
    _supervisor: Supervisor
    _held: contextlib.ExitStack

    async def stop(self) -> None:
        """Drain all and free the data folder. Same event loop as the start."""
        await self._supervisor.stop()
        forget_stack(self.data_dir)
        self._held.close()


async def start_stores(data_dir: Path) -> Stores:
    """Start Postgres, Redis and Milvus Lite from a data folder and wait until all are healthy.

    They are kept running by tasks of this event loop, and end with this process even if it is killed. Call from the
    main thread.

    Raises:
        Conflict: another process runs a stack from this folder.
        StartFailed: one did not come up; all are ended again.
    """
    with contextlib.ExitStack() as held:
        data_dir = held.enter_context(owned(data_dir))
        installation = Installation.load(data_dir)
        ports = choose_ports({name: installation.ports.get(name, 0) for name in STORES})
        installation = installation.model_copy(update={"ports": installation.ports | ports})
        installation.save(data_dir)
        supervisor = store_supervisor(data_dir, installation)
        try:
            await supervisor.start()
        except BaseException:
            await supervisor.stop()
            forget_stack(data_dir)
            raise
        return Stores(
            superuser_url=conninfo(ports["postgres"], installation.secrets.superuser),
            secrets=installation.secrets,
            postgres_port=ports["postgres"],
            redis_url=redis_url(ports["redis"], installation.secrets.redis),
            milvus_uri=milvus_uri(ports["milvus"]),
            data_dir=data_dir,
            _supervisor=supervisor,
            _held=held.pop_all(),
        )


def store_supervisor(data_dir: Path, installation: Installation) -> Supervisor:
    """Return a supervisor of the three stores that records what it starts."""
    ports, secrets, env = installation.ports, installation.secrets, native_environment()
    me = os.getpid()
    blank = StackState(supervisor_pid=me, supervisor_identity=processes.identity(me), since=time.time(), of="stores")

    def record(children: tuple[ChildRecord, ...]) -> None:
        blank.model_copy(update={"children": children}).save(data_dir)

    stage = (
        postgres_child(data_dir, ports["postgres"], secrets.superuser, unprivileged_account(), env),
        redis_child(data_dir, ports["redis"], secrets.redis, env),
        milvus_child(data_dir, ports["milvus"], python_environment({})),
    )
    return Supervisor([stage], record=record)
