"""The command line as users have it: a process of its own against the running stack."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.local.settings import python_environment

COMMAND = [sys.executable, "-c", "from service.cli.main import main; main()"]
Outcome = subprocess.CompletedProcess[str]


def command_line(
    data_dir: Path | str, *words: str, stdin: str = "", cwd: Path | None = None, **settings: str
) -> Outcome:
    """Run `tessera words...` with `TESSERA_*` settings and nothing else of this process's."""
    given = {"TESSERA_DATA_DIR": str(data_dir)} | {f"TESSERA_{name.upper()}": value for name, value in settings.items()}
    return subprocess.run(
        [*COMMAND, *words],
        env=python_environment(given),
        input=stdin,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture
def run(stack: Any) -> Callable[..., Outcome]:
    """Runs a command against the local stack; `ok=False` where it has to fail."""

    def run(*words: str, ok: bool = True, **options: Any) -> Outcome:
        ended = command_line(stack.env["TESSERA_DATA_DIR"], *words, **options)
        assert (ended.returncode == 0) == ok, ended.stdout + ended.stderr
        return ended

    return run


@pytest.fixture
def read(run: Callable[..., Outcome]) -> Callable[..., Any]:
    """Runs a command with `--json` and returns what it printed."""
    return lambda *words, **options: json.loads(run(*words, "--json", **options).stdout)
