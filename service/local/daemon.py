"""The stack in the background: a supervisor in a session of its own, and the pipe by which it says how its start goes.

`start_daemon` runs in the command that waits; `main` is the supervisor. The supervisor is a new interpreter, not a
fork, so that nothing the command has imported stays in memory.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from service.local import logs
from service.local.account import private_folder
from service.local.child import StartFailed
from service.local.plan import Plan
from service.local.run import prepare_plan, run_here
from service.local.settings import daemon_environment
from service.local.state import StackState
from service.local.supervisor import Event
from service.settings import Settings
from tenants.errors import TesseraError

logger = logging.getLogger("service.local.daemon")
MODULE = "service.local.daemon"
FORMAT = "%(asctime)s %(levelname)s %(message)s"


def supervisor_log(data_dir: Path) -> Path:
    """Return the log of the supervisor, bounded for a new start; creates its folder."""
    private_folder(data_dir)
    path = private_folder(data_dir / "logs") / "supervisor.log"
    logs.rotate(path)
    return path


@contextmanager
def start_daemon(
    data_dir: Path, module: str = MODULE, words: Sequence[str] = ()
) -> Iterator[tuple[subprocess.Popen[bytes], IO[str]]]:
    """Start the supervisor in the background; yield it and the lines that it writes until it is ready or has failed.

    `module` is what runs and `words` what it is told: it calls `supervise`.

    Each line is a JSON object with `kind`: `healthy`, `done`, `stopped`, then `ready` or `failed`.
    """
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as lines:
        try:
            with supervisor_log(data_dir).open("ab") as log:
                os.fchmod(log.fileno(), 0o600)
                process = subprocess.Popen(  # noqa: S603  this interpreter with fixed words
                    [sys.executable, "-P", "-m", module, f"--report={writing}", str(data_dir), *words],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=daemon_environment(),
                    pass_fds=(writing,),
                    start_new_session=True,
                )
        finally:
            os.close(writing)
        yield process, lines


class Report:
    """Writes the progress of the start to the command that waits, as long as it waits."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._pipe: IO[str] | None = os.fdopen(descriptor, "w", encoding="utf-8")

    def write(self, kind: str, **values: Any) -> None:
        """Write one line; the other side may have gone."""
        if self._pipe is not None:
            try:
                self._pipe.write(json.dumps({"kind": kind, **values}) + "\n")
                self._pipe.flush()
            except BrokenPipeError:
                self._pipe = None

    def event(self, event: Event) -> None:
        """Write what happened to a child, and log it."""
        logger.info("%s %s after %.2f s", event.name, event.kind, event.seconds)
        self.write(**asdict(event))

    def ready(self, state: StackState) -> None:
        """Write the last line of a good start and hang up."""
        logger.info("ready at %s", state.url)
        self.write("ready", url=state.url)
        self.close()

    def failed(self, error: TesseraError | OSError) -> None:
        """Write the last line of a failed start and hang up."""
        logger.error("the start failed: %s", error)
        tail = error.tail if isinstance(error, StartFailed) else []
        self.write(
            "failed", message=str(error), tail=tail, log=str(error.log) if isinstance(error, StartFailed) else ""
        )
        self.close()

    def close(self) -> None:
        """Hang up."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


def supervise(
    prepare: Callable[[Path, list[str]], Plan], ready: Callable[[Path, list[str], StackState], None] | None = None
) -> int:
    """Run what is planned until a signal; return exit status 1 when the start failed.

    Args:
        prepare: makes the plan from the data folder and the words of the command line.
        ready: is called with the same and what runs when all is healthy, before the command that waits is told.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--report", type=int, required=True)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format=FORMAT)
    report = Report(options.report)

    def started(state: StackState) -> None:
        if ready is not None:
            ready(options.data_dir, options.words, state)
        report.ready(state)

    try:
        run_here(lambda folder: prepare(folder, options.words), options.data_dir, report.event, started)
    except (TesseraError, OSError) as error:
        report.failed(error)
        return 1
    finally:
        report.close()
    logger.info("drained")
    return 0


def prepare_stack(data_dir: Path, _: Sequence[str] = ()) -> Plan:
    """Plan the local stack by the settings of this process."""
    return prepare_plan(Settings(), data_dir)


if __name__ == "__main__":
    sys.exit(supervise(prepare_stack))
