"""Free TCP ports on the loopback interface."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

LOOPBACK = "127.0.0.1"
LOWEST = 20000
RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def is_free(port: int) -> bool:
    """Say whether a server could listen on this port of the loopback interface now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of the last run in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_port(taken: Collection[int] = (), span: range | None = None) -> int:
    """Return a random free port of `span`, or else below the range the kernel gives to outgoing connections.

    A port inside that range can be taken by any client while its server restarts, even by a client that connects to
    itself.

    Raises:
        OSError: no port is free.
    """
    ceiling = int(RANGE_FILE.read_text(encoding="ascii").split()[0]) if RANGE_FILE.exists() else 32768
    usual = range(LOWEST, ceiling - 1) if ceiling > LOWEST + 1000 else range(1024, 65535)
    ports = span or usual
    for port in random.sample(ports, min(500, len(ports))):
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free port between {ports[0]} and {ports[-1]}")


def choose_ports(preferred: Mapping[str, int], spans: Mapping[str, range] = MappingProxyType({})) -> dict[str, int]:
    """Return a port for each name: the preferred one (0: none) if it is free, else another of its span."""
    chosen: dict[str, int] = {}
    for name, port in preferred.items():
        usable = port and port not in chosen.values() and is_free(port)
        chosen[name] = port if usable else free_port(chosen.values(), spans.get(name))
    return chosen
