"""A whole stack of its own for tests that break it: started and ended by the command that users have."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from service.local.ports import free_port
from service.local.settings import python_environment
from service.local.state import StackState, running_stack

TIMEOUT_S = 240
_TESSERA = (sys.executable, "-c", "from service.cli.main import main; main()")


@contextmanager
def own_stack(data_dir: Path, *, before: Sequence[str] = (), **settings: str) -> Iterator[StackState]:
    """Run a stack from a data folder; `before` are words that stand before the command, settings are `TESSERA_*`."""
    # Not the usual port: while its API is dead, another stack of this machine could take that.
    port = {"TESSERA_API_PORT": str(free_port())}
    env = python_environment({"TESSERA_DATA_DIR": str(data_dir), **port, **settings})

    def tessera(*words: str) -> None:
        ended = subprocess.run(
            [*before, *_TESSERA, *words], env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr

    try:
        tessera("up")
        state = running_stack(data_dir)
        assert state is not None
        yield state
    finally:
        tessera("down")
