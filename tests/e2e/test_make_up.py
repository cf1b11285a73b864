"""The whole job of `make up`, as a user runs it: a stack of its own from nothing, the demo, down, up again, down."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from service.local.ports import LOOPBACK
from service.local.settings import python_environment
from service.local.state import running_stack
from service.settings import ApiSettings

TIMEOUT_S = 300


def tessera(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from service.cli.main import main; main()", *arguments],
        env=python_environment({"TESSERA_DATA_DIR": str(data_dir)}),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.fixture
def taken() -> Iterator[None]:
    """The usual port is somebody else's."""
    with socket.socket() as other:
        with suppress(OSError):  # it is already
            other.bind((LOOPBACK, ApiSettings().port))
            other.listen()
        yield


@pytest.mark.usefixtures("taken")
def test_from_nothing_to_a_cited_answer_and_back(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    first = tessera(data_dir, "up", "--demo")
    try:
        assert first.returncode == 0, first.stdout + first.stderr
        out = first.stdout
        assert re.search(r"\[1\]", out), "an answer with a citation"
        assert out.count("This is not in your documents.") == 2
        state = running_stack(data_dir)
        assert state is not None
        assert state.url in out
        assert_the_printed_curl_works(out)
        exported = dict(
            line.removeprefix("export ").split("=", 1) for line in tessera(data_dir, "env").stdout.splitlines()
        )
        assert {name: shlex.split(value) for name, value in exported.items()} == {
            "TESSERA_URL": [state.url],
            "TESSERA_ADMIN_KEY": [state.admin_key],
        }
        documents = count_documents(state.url, out)
        assert documents == 24
        processes = [psutil.Process(child.pid) for child in state.children]
    finally:
        down = tessera(data_dir, "down")
    assert down.returncode == 0, down.stdout + down.stderr
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)

    again = tessera(data_dir, "up")
    try:
        assert again.returncode == 0, again.stdout + again.stderr
        state = running_stack(data_dir)
        assert state is not None
        assert count_documents(state.url, out) == documents, "all documents are still there"
    finally:
        assert tessera(data_dir, "down").returncode == 0


def keys_in(out: str) -> list[str]:
    return sorted(set(re.findall(r"tsr_live_\w+", out)))


def count_documents(url: str, out: str) -> int:
    total = 0
    for key in keys_in(out):
        headers = {"Authorization": f"Bearer {key}"}
        answer = httpx.get(f"{url}/v1/documents", params={"limit": 100, "state": "active"}, headers=headers)
        total += len(answer.json()["items"])
    return total


def assert_the_printed_curl_works(out: str) -> None:
    block = out[out.index("export TESSERA_URL=") : out.index("curl $TESSERA_URL/v1/documents")]
    ran = subprocess.run(["bash", "-c", block], capture_output=True, text=True, timeout=60, check=True)
    assert "event: done" in ran.stdout


def test_a_failing_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    environment = python_environment({"TESSERA_DATA_DIR": str(data_dir), "TESSERA_SEARCH_RERANKER": "crystal_ball"})
    failed = subprocess.run(
        [sys.executable, "-c", "from service.cli.main import main; main()", "up"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert failed.returncode != 0
    assert "TESSERA_SEARCH_RERANKER" in failed.stdout + failed.stderr
    assert running_stack(data_dir) is None
