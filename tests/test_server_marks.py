"""`make test-servers` finds the tests that reach for a server, by a fixture, a helper, a class or a fixture's name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.on_servers import run_part, verdict
from tests.server_marks import LOCAL_ALONE, mark_of
from tests.servers import server
from tests.test_house_rules import ROOT


def address() -> Any:
    return server("redis")["url"]


class Client:
    def __init__(self) -> None:
        self.url = address()


@pytest.fixture
def by_class() -> Client:
    return Client()


@pytest.fixture
def by_name(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("by_class")


@pytest.fixture
def by_parameter(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture
def without() -> int:
    return 1


@pytest.mark.parametrize("by_parameter", ["without", "by_class"], indirect=True)
def named(by_parameter: Any) -> None: ...


def asking(by_name: Any) -> None: ...


def whole(tenant: Any) -> None: ...


def neither(without: int) -> None: ...


CASES = [(named, ["", "servers"]), (asking, ["servers"]), (whole, ["stack"]), (neither, [""])]


@pytest.mark.parametrize(("function", "marks"), CASES)
def test_the_way_by_which_a_test_comes_to_a_server(
    request: pytest.FixtureRequest, function: Any, marks: list[str]
) -> None:
    module = request.node.getparent(pytest.Module)
    assert [mark_of(item) for item in module._genfunctions(function.__name__, function)] == marks


def test_what_stays_local_is_there() -> None:
    assert all((ROOT / place.partition("::")[0]).exists() for place in LOCAL_ALONE)


@pytest.mark.parametrize(
    ("status", "arguments", "found"), [(0, [], 0), (1, ["-k", "x"], 1), (5, ["-k", "x"], 0), (5, [], 5)]
)
def test_a_part_of_which_nothing_ran_is_good_only_when_somebody_chose(
    status: int, arguments: list[str], found: int
) -> None:
    assert verdict(status, arguments) == found


@pytest.mark.parametrize(
    ("test", "again", "status"), [("at_second", False, 1), ("at_second", True, 0), ("never", True, 1)]
)
def test_what_failed_may_be_run_once_more(tmp_path: Path, test: str, again: bool, status: int) -> None:
    (tmp_path / "test_some.py").write_text(
        "from pathlib import Path\n\nSEEN = Path(__file__).with_name('seen')\n\n"
        "def test_good(): pass\n"
        "def test_never(): assert False\n"
        "def test_at_second():\n    seen = SEEN.exists()\n    SEEN.touch()\n    assert seen\n",
        encoding="utf-8",
    )
    alone = ["-c", "/dev/null", "--rootdir", str(tmp_path), "-o", f"cache_dir={tmp_path / 'cache'}"]
    words = [*alone, "-n", "2", "-k", f"good or {test}", str(tmp_path)]
    assert run_part(words, dict(os.environ), again=again) == status
