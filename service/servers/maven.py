"""Jars from the registry that Maven is set to use, without Maven and without Java.

Which jars, with their hashes, stands in a lock that names no place; `maven_settings` says where the place is found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx

from service.servers.cache import Cache
from service.servers.commands import FetchFailed
from service.servers.maven_settings import central, mirror
from service.servers.programs import MAVEN, bring

PARALLEL = 8
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Jar:
    """One file of the registry: its path there, and what it must be."""

    path: str
    sha256: str

    @property
    def name(self) -> str:
        """Its file name."""
        return self.path.rpartition("/")[2]


def locked_jars(lock: Path) -> list[Jar]:
    """Read a lock: lines of `sha256 group:artifact:version[:classifier]`, remarks after `#`."""
    lines = (line.partition("#")[0].split() for line in lock.read_text(encoding="utf-8").splitlines())
    return [Jar(path_of(coordinates), sha256) for sha256, coordinates in (line for line in lines if line)]


def path_of(coordinates: str) -> str:
    """Return where an artifact lies below a registry's address (the layout of Maven 2)."""
    group, artifact, version, *classifier = coordinates.split(":")
    name = "-".join([artifact, version, *classifier])
    return f"{group.replace('.', '/')}/{artifact}/{version}/{name}.jar"


def fetch_jars(jars: Sequence[Jar], folder: Path, place: str) -> None:
    """Download jars into a folder.

    Args:
        jars: see `locked_jars`.
        folder: which exists.
        place: the address below which they lie (see `registry`).

    Raises:
        FetchFailed: one cannot be had, or is not what the lock says.
    """
    context = httpx.create_ssl_context()
    context.load_default_certs()  # the system's, beside those that come with httpx
    with (
        httpx.Client(verify=context, timeout=TIMEOUT_S, follow_redirects=True) as client,
        ThreadPoolExecutor(PARALLEL) as pool,
    ):
        list(pool.map(lambda jar: _fetch(client, f"{place}/{jar.path}", jar, folder), jars))


def _fetch(client: httpx.Client, url: str, jar: Jar, folder: Path) -> None:
    try:
        content = client.get(url).raise_for_status().content
    except httpx.HTTPError as error:
        raise FetchFailed(f"{url} cannot be had: {error or type(error).__name__}") from error
    if hashlib.sha256(content).hexdigest() != jar.sha256:
        raise FetchFailed(f"{url} is not what the lock says: its sha256 differs")
    (folder / jar.name).write_bytes(content)


def registry(cache: Cache) -> str:
    """Return the address below which the jars lie, without a slash at its end.

    Raises:
        FetchFailed: Maven is not set up here and its package cannot be had either.
    """
    said = bring(cache, MAVEN).path
    return (mirror(said) if said.suffix == ".xml" else central(said)).rstrip("/")
