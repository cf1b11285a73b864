"""Commands as processes of their own that need not import everything first: each is forked from one that has.

The process that forks has only imported; environment, folder, arguments and streams are each command's own, and `main`
runs in it from its first line to its exit status.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from service.cli.main import COMMANDS, main
from service.local.settings import python_environment

TIMEOUT_S = 240
_SERVE = f"from {__name__} import serve; serve()"


class Forker:
    """A process that has imported all commands, and runs one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            env=python_environment({}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, words: list[str], env: Mapping[str, str], stdin: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a command line and wait for it. Raises EOFError when the process that forks has ended."""
        given, out, err = (self._folder / name for name in ("stdin", "stdout", "stderr"))
        given.write_text(stdin)
        order = {"words": words, "env": dict(env), "cwd": str(cwd), "streams": [str(given), str(out), str(err)]}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise EOFError(f"the process that forks commands ended with status {self._process.wait()}")
        return subprocess.CompletedProcess(words, int(answer), out.read_text(), err.read_text())

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=TIMEOUT_S)


def serve() -> None:
    """Fork a command for each line of standard input, and answer with its exit status."""
    for module in {place.partition(":")[0] for place, _ in COMMANDS.values()}:
        importlib.import_module(module)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(_command(json.loads(line)))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201  the answer


def _command(order: dict[str, Any]) -> int:
    """Become the command that was ordered; return its exit status."""
    signal.alarm(TIMEOUT_S)
    _take_over(order["streams"])
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    sys.argv = ["tessera", *order["words"]]
    try:
        main()
    except SystemExit as ended:
        return _status(ended.code)
    except BaseException:  # noqa: BLE001  what the interpreter would show
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _status(code: str | int | None) -> int:
    if isinstance(code, str):
        print(code, file=sys.stderr, flush=True)  # noqa: T201  as the interpreter does
        return 1
    return code or 0


def _take_over(streams: list[str]) -> None:
    flags = (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT | os.O_TRUNC] * 2)
    for number, (path, flag) in enumerate(zip(streams, flags, strict=True)):
        opened = os.open(path, flag, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = _stream(0, "r"), _stream(1, "w"), _stream(2, "w")


def _stream(number: int, mode: str) -> IO[str]:
    return io.open(number, mode, encoding="utf-8", closefd=False)  # noqa: UP020  not another `open`
