"""The command line as users have it: each command in a process of its own, against the running stack."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.local.settings import python_environment
from tests.service.cli.forked import TIMEOUT_S, Forker

COMMAND = [sys.executable, "-c", "from service.cli.main import main; main()"]
Outcome = subprocess.CompletedProcess[str]


def command_line(
    data_dir: Path | str,
    *words: str,
    forker: Forker | None,
    stdin: str = "",
    cwd: Path | None = None,
    **settings: str,
) -> Outcome:
    """Run `tessera words...` with `TESSERA_*` settings and nothing else of this process's."""
    given = {"TESSERA_DATA_DIR": str(data_dir)} | {f"TESSERA_{name.upper()}": value for name, value in settings.items()}
    env = python_environment(given)
    if forker is not None:
        return forker.run(list(words), env, stdin, cwd or Path.cwd())
    return subprocess.run(
        [*COMMAND, *words],
        env=env,
        input=stdin,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.fixture(scope="session")
def forker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forker]:
    """Where commands are forked from, so that not each of them imports everything."""
    made = Forker(tmp_path_factory.mktemp("commands"))
    yield made
    made.close()


@pytest.fixture
def run(stack: Any, forker: Forker) -> Callable[..., Outcome]:
    """Runs a command against the local stack; `ok=False` where it has to fail, `fresh=True` in an interpreter of its
    own."""

    def run(*words: str, ok: bool = True, fresh: bool = False, **options: Any) -> Outcome:
        ended = command_line(stack.env["TESSERA_DATA_DIR"], *words, forker=None if fresh else forker, **options)
        assert (ended.returncode == 0) == ok, ended.stdout + ended.stderr
        return ended

    return run


@pytest.fixture
def read(run: Callable[..., Outcome]) -> Callable[..., Any]:
    """Runs a command with `--json` and returns what it printed."""
    return lambda *words, **options: json.loads(run(*words, "--json", **options).stdout)
