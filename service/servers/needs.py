"""What the servers need of this machine, said before anything is downloaded."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.servers import programs
from service.servers.cache import Cache
from service.servers.debian import tree_of
from service.servers.environments import AZURITE_FOLDER, VERSITYGW_FOLDER, VLLM_FOLDER, folder_of, torch_folder
from service.servers.fetched import OPENSEARCH
from service.servers.installation import (
    AZURITE,
    MILVUS,
    OPENSEARCH_2,
    OPENSEARCH_3,
    POSTGRES,
    REDIS,
    S3,
    TORCH,
    TRANSFORMERS,
    VLLM,
    VLLM_EMBED,
    VLLM_RERANK,
)
from service.servers.milvus import ENCLOSURE, SCRIPT
from service.servers.programs import Program, package_of

PROGRAMS: Mapping[str, tuple[Program, ...]] = {
    POSTGRES: (programs.POSTGRES, programs.PGBOUNCER),
    REDIS: (programs.REDIS,),
    OPENSEARCH_2: (programs.JAVA_17, programs.MAVEN),
    OPENSEARCH_3: (programs.JAVA_21, programs.MAVEN),
}
"""What each server needs that no registry of packages has."""


@dataclass(frozen=True)
class Part:
    """Something that is fetched once: its folder in the cache, in words, and MB to download and on the disk."""

    folder: str
    words: str
    download: int
    disk: int


VLLM_PART = Part(VLLM_FOLDER, "vLLM and transformers with PyTorch, wheels", 2600, 5900)
PARTS: Mapping[str, tuple[Part, ...]] = {
    MILVUS: (Part(folder_of("milvus"), "Milvus 2.3.5, a wheel", 56, 250),),
    OPENSEARCH_2: (Part(OPENSEARCH[OPENSEARCH_2], "OpenSearch 2.19, jars", 55, 55),),
    OPENSEARCH_3: (Part(OPENSEARCH[OPENSEARCH_3], "OpenSearch 3.5, jars", 72, 72),),
    S3: (Part(VERSITYGW_FOLDER, "versitygw, built by Go from its sources", 100, 84),),
    VLLM: (VLLM_PART,),
    TRANSFORMERS: (VLLM_PART,),
    VLLM_EMBED: (VLLM_PART,),
    VLLM_RERANK: (VLLM_PART,),
    AZURITE: (Part(AZURITE_FOLDER, "Azurite, an npm package", 20, 120),),
    TORCH: (Part(torch_folder(), "sentence-transformers with PyTorch, wheels", 2800, 6000),),
}


@dataclass(frozen=True)
class Needs:
    """What a start would do, and what it would do without."""

    possible: tuple[str, ...]
    """The servers that can be started."""
    left_out: Mapping[str, tuple[str, ...]]
    """Of the others, what each lacks: sentences with a mend."""
    parts: tuple[Part, ...]
    """What is to be fetched from registries."""
    packages: tuple[str, ...]
    """What is to be fetched from Debian."""

    def sentences(self) -> list[str]:
        """Return what a person is told, [] when nothing is fetched or left out."""
        said = [f"to fetch: {part.words} ({part.download} MB, on the disk {part.disk} MB)" for part in self.parts]
        if self.packages:
            said.append(f"to fetch, without installing it: Debian's {', '.join(self.packages)}")
        for lack in sorted({lack for lacks in self.left_out.values() for lack in lacks}):
            without = ", ".join(server for server, lacks in self.left_out.items() if lack in lacks)
            said.append(f"left out: {without}. {lack}")
        return said


def examine_needs(servers: Sequence[str], cache: Cache, needed: Mapping[str, tuple[Program, ...]] = PROGRAMS) -> Needs:
    """Look at this machine and at the cache; fetches nothing."""
    lacks = {server: tuple(_lacks(server, needed.get(server, ()))) for server in servers}
    possible = tuple(server for server in servers if not lacks[server])
    parts = {part.folder: part for server in possible for part in PARTS.get(server, ()) if not cache.has(part.folder)}
    wanted = [program for server in possible for program in needed.get(server, ()) if not program.find()]
    packages = {package_of(program): None for program in wanted if not cache.has(tree_of(package_of(program)))}
    left_out = {server: lack for server, lack in lacks.items() if lack}
    return Needs(possible, left_out, tuple(parts.values()), tuple(packages))


def _lacks(server: str, needed: Sequence[Program]) -> list[str]:
    """Return what a server lacks here and cannot be fetched."""
    if platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc":
        return ["It needs 64-bit x86 Linux with glibc."]
    said = [_lack(program) for program in needed if not program.find() and not package_of(program)]
    if server == MILVUS:
        said += _no_enclosure()
    return said


def _lack(program: Program) -> str:
    by_hand = " or ".join(f"`apt-get install {package}` (Debian {at})" for at, package in program.packages.items())
    return f"{program.name} is missing: {by_hand}."


def _no_enclosure() -> list[str]:
    """Try what Milvus is started in: it listens on all addresses, and is not started where that would be reachable."""
    tried = subprocess.run([*SCRIPT, str(ENCLOSURE)], capture_output=True, text=True, check=False)  # noqa: S603  ours
    return [] if tried.returncode == 0 else [f"Milvus listens on all addresses, and {tried.stderr.strip()}."]


def disk_is_short(needs: Needs, cache: Cache) -> str:
    """Return a sentence when the cache's disk cannot hold what is to be fetched, else ""."""
    place = next(folder for folder in (cache.folder, *cache.folder.parents) if folder.exists())
    free, wanted = shutil.disk_usage(place).free, sum(part.download + part.disk for part in needs.parts) * 1_000_000
    if free >= wanted:
        return ""
    return (
        f"{place} has {free / 1e6:.0f} MB free and {wanted / 1e6:.0f} MB are needed: free them, or set "
        "TESSERA_SERVERS_CACHE_DIR to another folder."
    )
