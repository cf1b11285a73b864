"""The servers in the background: `python -m service.servers.daemon --report=N DATA_DIR NAME ...`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from service.local.daemon import supervise
from service.local.plan import Plan
from service.local.state import StackState
from service.servers.cache import Cache
from service.servers.fetched import Fetched
from service.servers.plan import announce, plan_servers
from service.settings import Settings

logger = logging.getLogger("service.servers.daemon")
MODULE = "service.servers.daemon"


def fetched() -> Fetched:
    """Return the programs, told of in the supervisor's log: the command that waits has fetched them before."""
    return Fetched(Cache(Settings().servers.cache_folder(), logger.info))


def prepare(data_dir: Path, servers: list[str]) -> Plan:
    """Plan the servers of these names."""
    return plan_servers(servers, fetched(), data_dir)


def ready(data_dir: Path, servers: list[str], state: StackState) -> None:
    """Write down where they are."""
    announce(servers, state, fetched(), data_dir)


if __name__ == "__main__":
    sys.exit(supervise(prepare, ready))
