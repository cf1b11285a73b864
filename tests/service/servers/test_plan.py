"""What is started: on loopback alone, with no secret among the arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.local.spec import ChildSpec
from service.servers.cache import Cache
from service.servers.fetched import Fetched
from service.servers.installation import ALL, ServerInstallation
from service.servers.plan import plan_servers
from service.servers.programs import Found
from tenants.errors import Misconfigured


class There(Fetched):
    """Everything is fetched."""

    def __init__(self) -> None:
        super().__init__(Cache(Path("/cache"), lambda sentence: None))

    def postgres(self) -> Found:
        return Found(Path("/debian/usr/lib/postgresql/15/bin/postgres"), (Path("/debian/usr/lib"),))

    def pgbouncer(self) -> Found:
        return Found(Path("/usr/sbin/pgbouncer"))

    def redis(self) -> Found:
        return Found(Path("/usr/bin/redis-server"))

    def java(self, server: str) -> Found:
        return Found(Path("/usr/bin/java"))

    def jars(self, server: str) -> Path:
        return Path("/cache") / server

    def milvus(self) -> Path:
        return Path("/cache/milvus")

    def versitygw(self) -> Path:
        return Path("/cache/versitygw")

    def vllm(self) -> Path:
        return Path("/cache/vllm/python")

    def model(self) -> Path:
        return Path("/cache/model")

    def reranker(self) -> Path:
        return Path("/cache/reranker")

    def azurite(self) -> tuple[Path, Path]:
        return Path("/usr/bin/node"), Path("/cache/azurite")


@pytest.fixture
def children(tmp_path: Path) -> list[ChildSpec]:
    plan = plan_servers(ALL, There(), tmp_path)
    members = [
        member for stage in plan.stages for one in stage for member in (one if isinstance(one, tuple) else (one,))
    ]
    return [member for member in members if isinstance(member, ChildSpec)]


def test_each_has_its_own_port_log_and_probe(children: list[ChildSpec]) -> None:
    assert len({child.port for child in children}) == len(children)
    assert len({child.log for child in children}) == len(children)
    assert len({child.probe for child in children}) == len(children)


def test_no_argument_tells_a_secret(children: list[ChildSpec], tmp_path: Path) -> None:
    known = ServerInstallation.load(tmp_path).secrets.model_dump().values()
    assert [child.name for child in children for word in child.argv for secret in known if secret in word] == []


def test_none_listens_beyond_this_machine(children: list[ChildSpec]) -> None:
    assert [child.name for child in children for word in child.argv if "0.0.0.0" in word] == []
    (milvus,) = [child for child in children if child.name == "milvus"]
    assert any(word.endswith("enclosure.py") for word in milvus.argv)


def test_libraries_of_an_unpacked_package_are_found(children: list[ChildSpec]) -> None:
    (postgres,) = [child for child in children if child.name == "postgres"]
    assert postgres.env["LD_LIBRARY_PATH"] == "/debian/usr/lib"


def test_ports_are_remembered(tmp_path: Path) -> None:
    first, second = (plan_servers(["redis", "s3"], There(), tmp_path) for _ in range(2))
    assert first.env == second.env


def test_a_damaged_state_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(Misconfigured):
        plan_servers(["redis"], There(), tmp_path)
