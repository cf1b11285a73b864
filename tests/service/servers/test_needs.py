"""What a machine lacks is said in one message, with what to install, before anything is fetched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from service.servers import debian
from service.servers.cache import Cache
from service.servers.installation import ALL, MILVUS, OPENSEARCH_3, POSTGRES, S3, VLLM
from service.servers.needs import PARTS, PROGRAMS, disk_is_short, examine_needs
from service.servers.programs import Program

NEVER = {"1": "never-packaged"}
"""Of a release of Debian that nobody has."""
ABSENT = Program("Postgres 15", NEVER, lambda: None)
PRESENT = Program("PgBouncer", NEVER, lambda: Path("/bin/true"))


def fetched(folder: Path, *names: str) -> Cache:
    cache = Cache(folder, lambda sentence: pytest.fail(f"fetched: {sentence}"))
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / ".whole").touch()
    return cache


def test_every_missing_program_is_named_with_its_package(tmp_path: Path) -> None:
    java = Program("Java 21 or newer", {"1": "openjdk-21-jre-headless"}, lambda: None)
    needed: Mapping[str, tuple[Program, ...]] = {POSTGRES: (ABSENT, PRESENT), OPENSEARCH_3: (java,)}
    needs = examine_needs([POSTGRES, OPENSEARCH_3, S3], fetched(tmp_path), needed)
    assert needs.possible == (S3,)
    said = needs.sentences()
    assert any("postgres. Postgres 15 is missing: `apt-get install never-packaged`" in line for line in said)
    assert any("opensearch3. Java 21 or newer is missing: `apt-get install openjdk-21" in line for line in said)
    assert not any("PgBouncer" in line for line in said)
    assert any(line.startswith("to fetch: versitygw") for line in said)


def test_what_several_servers_lack_is_said_once(tmp_path: Path) -> None:
    needs = examine_needs([POSTGRES, OPENSEARCH_3], fetched(tmp_path), {POSTGRES: (ABSENT,), OPENSEARCH_3: (ABSENT,)})
    assert len([line for line in needs.sentences() if "Postgres 15 is missing" in line]) == 1
    assert "left out: postgres, opensearch3." in needs.sentences()[-1]


def test_nothing_is_said_of_what_is_there(tmp_path: Path) -> None:
    cache = fetched(tmp_path, *{part.folder for parts in PARTS.values() for part in parts})
    needs = examine_needs([S3, VLLM], cache, {})
    assert needs.sentences() == []
    assert disk_is_short(needs, cache) == ""


def test_a_package_that_apt_can_bring_is_no_lack(tmp_path: Path) -> None:
    release = debian.release()
    if not release or not debian.has_apt():
        pytest.skip("this is not Debian")
    absent = Program("Postgres 15", {release: "postgresql-15"}, lambda: None)
    needs = examine_needs([POSTGRES], fetched(tmp_path), {POSTGRES: (absent,)})
    assert needs.possible == (POSTGRES,)
    assert needs.sentences() == ["to fetch, without installing it: Debian's postgresql-15"]


def test_a_disk_that_cannot_hold_it_is_named(tmp_path: Path) -> None:
    cache = fetched(tmp_path)
    needs = examine_needs([VLLM], cache, {})
    huge = type(needs)(needs.possible, {}, tuple(part for part in needs.parts for _ in range(100_000)), ())
    assert "TESSERA_SERVERS_CACHE_DIR" in disk_is_short(huge, cache)


def test_every_server_is_known_to_need_something() -> None:
    assert set(PARTS) | set(PROGRAMS) == set(ALL)
    assert MILVUS in PARTS
