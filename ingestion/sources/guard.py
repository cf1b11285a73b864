"""Where the service may connect to when a tenant names the address: public hosts, and what the operator allows.

The guard sits at the socket. A host is resolved once, every address of it must pass, and the connection goes to one of
these very addresses, so a name that resolves otherwise the next moment gains nothing. Whatever follows (a redirect, a
page of a sitemap, a second request) opens its socket through the same door. `check_url` refuses earlier and says why.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

import httpcore

from tenants.errors import SourceFailed, SourceUnavailable

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Lookup = Callable[[str, int], Awaitable[list[str]]]
"""Resolves a host: every address it has, as text."""
SocketOptions = Iterable[httpcore.SOCKET_OPTION] | None

_DEFAULT_PORTS = {"http": 80, "https": 443}
_GLOBAL_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_REFUSED: tuple[Network, ...] = (
    IPv4Network("168.63.129.16/32"),  # Azure's host, which answers virtual machines with their secrets
    IPv4Network("192.0.0.0/24"),  # special purposes, some of which count as global
    IPv4Network("192.88.99.0/24"),  # relays of 6to4
    IPv6Network("2001::/23"),  # special purposes, Teredo among them
    IPv6Network("2002::/16"),  # 6to4 leads to an IPv4 address
    IPv6Network("3fff::/20"),  # documentation
)
_INNER_NAMES = (".internal", ".local", ".localhost", ".localdomain", ".lan", ".home.arpa")
_INNER_HOSTS = frozenset({"localhost", "metadata", "instance-data"})
_HOST = re.compile(r"[a-z0-9._-]+\Z|[0-9a-f:.]+(?:%[a-z0-9_.-]+)?\Z")
_NUMERIC = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Allowed:
    """One exception that the operator made: a network or a host, and the port (None: the usual ones, 0: any)."""

    host: str
    network: Network | None
    port: int | None

    def takes(self, host: str, address: Address, port: int, usual: frozenset[int]) -> bool:
        """Return whether a connection is covered."""
        if self.port != 0 and (port not in usual if self.port is None else port != self.port):
            return False
        if self.network is None:
            return host == self.host
        return address.version == self.network.version and address in self.network


@dataclass(frozen=True)
class Rules:
    """What may be connected to: these ports of public addresses, and the operator's exceptions."""

    ports: frozenset[int]
    allowed: tuple[Allowed, ...] = ()

    def name(self, host: str) -> bool:
        """Return whether the operator named a host, or the network of a literal address."""
        literal = _literal(host)
        if literal is None:
            return any(one.network is None and one.host == host for one in self.allowed)
        return any(one.network is not None and literal in one.network for one in self.allowed)


def parse_rules(allowed: str, ports: str) -> Rules:
    """Read the settings: exceptions as `network`, `host`, each with `:port` or `:*`; ports as numbers.

    Raises:
        ValueError: one of them is none of these.
    """
    numbers = frozenset(_port(item) for item in ports.split(",") if item.strip())
    return Rules(numbers, tuple(_exception(item.strip()) for item in allowed.split(",") if item.strip()))


def _exception(text: str) -> Allowed:
    host, port = text, None
    found = re.fullmatch(r"(\[[^\]]+\](?:/\d+)?|[^:]+):(\*|\d+)", text)
    if found:
        host, port = found[1], 0 if found[2] == "*" else _port(found[2])
    host = host.replace("[", "").replace("]", "")
    try:
        return Allowed("", ip_network(host, strict=False), port)
    except ValueError:
        if not re.fullmatch(r"(?=.*[a-z])[a-z0-9._-]+", host.lower()):
            raise ValueError(f"{text!r} is neither a network nor a host") from None
        return Allowed(host.lower(), None, port)


def _port(text: str) -> int:
    number = int(text)
    if not 0 < number < 65536:
        raise ValueError(f"{text} is not a port")
    return number


def check_url(text: str, rules: Rules) -> SplitResult:
    """Return the parts of an address that may be tried; what its name resolves to is checked by the connection.

    Raises:
        SourceFailed: `source_address_refused`, with the reason.
    """
    try:
        parts = urlsplit(text)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise refused(text, "it is not an address") from error
    if parts.scheme not in _DEFAULT_PORTS:
        raise refused(text, "only http and https are fetched")
    if parts.username is not None or parts.password is not None:
        raise refused(parts.scheme, "it carries a user name or password")
    host = host_of(parts)
    literal = _literal(host)
    if literal is None and _NUMERIC.match(host.rsplit(".", 1)[-1]):
        raise refused(host, "it is a number and not a name")
    named = {one.host for one in rules.allowed}
    if literal is None and host not in named and _is_inner(host):
        raise refused(host, "it names a host inside a network")
    if literal is not None:
        check_address(host, literal, port, rules)
    elif port not in rules.ports and not any(one.port in (0, port) for one in rules.allowed):
        raise refused(host, f"port {port} is not allowed")
    return parts


def host_of(parts: SplitResult) -> str:
    """Return the host of an address as it is looked up: ASCII, lower case, without a last dot.

    Raises:
        SourceFailed: there is none, or it is no name.
    """
    host = (parts.hostname or "").rstrip(".")
    try:
        plain = (host if host.isascii() else host.encode("idna").decode()).lower()
    except UnicodeError as error:
        raise refused(host, "it is not a host name") from error
    if not _HOST.match(plain):
        raise refused(host or parts.geturl(), "it is not a host name")
    return plain


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host.split("%")[0])
    except ValueError:
        return None


def _is_inner(host: str) -> bool:
    return host in _INNER_HOSTS or host.endswith(_INNER_NAMES) or "." not in host


def is_public(address: Address) -> bool:
    """Whether an address is one of the open internet, also when it wraps another (RFC 6890, 4291, 6052)."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in _GLOBAL_V6:
            return False
    if any(address.version == network.version and address in network for network in _REFUSED):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def check_address(host: str, address: Address, port: int, rules: Rules) -> None:
    """Raise `SourceFailed` unless a connection to this address is allowed."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if any(one.takes(host, mapped or address, port, rules.ports) for one in rules.allowed):
        return
    if not is_public(address):
        raise refused(host, "it leads to an address that is not public")
    if port not in rules.ports:
        raise refused(host, f"port {port} is not allowed")


def refused(what: str, why: str) -> SourceFailed:
    """Return the error that an address is not fetched from."""
    return SourceFailed(f"{what[:200]!r} is refused: {why}.", code="source_address_refused")


async def look_up(host: str, port: int) -> list[str]:
    """Return every address of a host, by the system's resolver.

    Raises:
        SourceUnavailable: it has none.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise SourceUnavailable(f"The host {host!r} was not found.", code="source_unreachable") from error
    return list(dict.fromkeys(str(where[4][0]) for where in found))


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Opens sockets for `httpcore`, to addresses that passed and to no others."""

    def __init__(self, rules: Rules, lookup: Lookup = look_up) -> None:
        self._rules, self._lookup = rules, lookup
        self._sockets = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: SocketOptions = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a host by one of its addresses; all of them must be allowed."""
        addresses = await self._lookup(host, port)
        for text in addresses:
            check_address(host, ip_address(text.split("%")[0]), port, self._rules)
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for text in addresses:
            try:
                return await self._sockets.connect_tcp(text, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError(f"{host} has no address")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        socket_options: SocketOptions = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: no source is behind a socket file."""
        raise refused(path, "it is a file")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
