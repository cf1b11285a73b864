"""Jars come from the registry that Maven is set to use, and are what the lock says."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from service.servers import maven
from service.servers.cache import Cache
from service.servers.commands import FetchFailed
from service.servers.environments import LOCKS
from service.servers.fetched import OPENSEARCH
from service.servers.maven_settings import SUPER_POM, central, mirror

CONTENT = b"a jar"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def place(tmp_path: Path) -> Iterator[str]:
    """A registry with one jar."""
    folder = tmp_path / "registry/org/example/amber/1.0"
    folder.mkdir(parents=True)
    (folder / "amber-1.0-linux.jar").write_bytes(CONTENT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "registry")))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetch(tmp_path: Path, place: str, line: str) -> Path:
    lock, folder = tmp_path / "lock.txt", tmp_path / "jars"
    lock.write_text(line)
    folder.mkdir()
    maven.fetch_jars(maven.locked_jars(lock), folder, place)
    return folder


def test_a_jar_is_fetched_from_where_maven_has_it(tmp_path: Path, place: str) -> None:
    folder = fetch(tmp_path, place, f"# one\n{SHA256} org.example:amber:1.0:linux\n")
    assert (folder / "amber-1.0-linux.jar").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0" * 64 + " org.example:amber:1.0:linux", "sha256 differs"),
        (f"{SHA256} org.example:salt:1.0", "cannot be had"),
    ],
)
def test_what_is_not_as_locked_is_refused(tmp_path: Path, place: str, line: str, said: str) -> None:
    with pytest.raises(FetchFailed, match=said):
        fetch(tmp_path, place, line)
    assert list((tmp_path / "jars").iterdir()) == []


def test_a_registry_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match=r"127\.0\.0\.1:1/org/example"):
        fetch(tmp_path, "http://127.0.0.1:1", f"{SHA256} org.example:amber:1.0")


def test_the_mirror_of_the_user_is_taken(tmp_path: Path) -> None:
    settings = tmp_path / "settings.xml"
    other = "<mirror><mirrorOf>jboss</mirrorOf><url>http://jboss.example</url></mirror>"
    ours = "<mirror><mirrorOf>central,other</mirrorOf><url>http://jars.example/all/</url></mirror>"
    settings.write_text(f'<settings xmlns="http://example/SETTINGS"><mirrors>{other}{ours}</mirrors></settings>')
    assert mirror(settings) == "http://jars.example/all/"
    settings.write_text(f"<settings><mirrors>{other}</mirrors></settings>")
    assert mirror(settings) == ""


def test_else_that_of_maven_itself(tmp_path: Path) -> None:
    jar = tmp_path / "maven-model-builder.jar"
    plugins = "<pluginRepository><id>central</id><url>http://plugins.example</url></pluginRepository>"
    ours = "<repository><id>central</id><url>http://central.example</url></repository>"
    with zipfile.ZipFile(jar, "w") as opened:
        opened.writestr(SUPER_POM, f"<project>{plugins}<repositories>{ours}</repositories></project>")
    assert central(jar) == "http://central.example"


@pytest.mark.parametrize("version", OPENSEARCH.values())
def test_the_locks_name_jars_and_no_place(version: str) -> None:
    lines = (LOCKS / f"{version}.txt").read_text().splitlines()
    assert len(lines) > 50
    assert [line for line in lines if not re.fullmatch(r"[0-9a-f]{64} [\w.-]+(:[\w.-]+){2,3}", line)] == []


@pytest.mark.parametrize("name", ["go", "milvus", "node", "torch", "vllm"])
def test_the_locks_of_packages_have_hashes_and_name_no_place(name: str) -> None:
    text = (LOCKS / f"{name}.txt").read_text()
    assert "://" not in text
    blocks = re.findall(r"^[a-z0-9].*(?:\n[ \t]+.*)*", text, re.MULTILINE)
    assert blocks
    assert [block for block in blocks if "==" not in block or "--hash=sha256:" not in block] == []


def test_the_lock_of_npm_packages_has_hashes_and_names_no_place() -> None:
    packages = json.loads((LOCKS / "azurite/package-lock.json").read_text())["packages"]
    locked = [package for name, package in packages.items() if name]
    assert len(locked) > 100
    assert [package for package in locked if "resolved" in package or "integrity" not in package] == []


def test_the_registry_is_asked_of_what_is_installed(tmp_path: Path) -> None:
    if maven.MAVEN.find() is None:
        pytest.skip("Maven is not set up here")
    cache = Cache(tmp_path, lambda sentence: pytest.fail(sentence))
    assert maven.registry(cache).startswith("http")
