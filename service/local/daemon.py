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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from service.local import logs
from service.local.account import private_folder
from service.local.child import StartFailed
from service.local.run import run_here
from service.local.settings import daemon_environment
from service.local.state import StackState
from service.local.supervisor import Event
from service.settings import Settings
from tenants.errors import TesseraError

logger = logging.getLogger("service.local.daemon")
FORMAT = "%(asctime)s %(levelname)s %(message)s"


def supervisor_log(data_dir: Path) -> Path:
    """Return the log of the supervisor, bounded for a new start; creates its folder."""
    private_folder(data_dir)
    path = private_folder(data_dir / "logs") / "supervisor.log"
    logs.rotate(path)
    return path


@contextmanager
def start_daemon(data_dir: Path) -> Iterator[tuple[subprocess.Popen[bytes], IO[str]]]:
    """Start the supervisor in the background; yield it and the lines that it writes until it is ready or has failed.

    Each line is a JSON object with `kind`: `healthy`, `done`, `stopped`, then `ready` or `failed`.
    """
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as lines:
        try:
            with supervisor_log(data_dir).open("ab") as log:
                os.fchmod(log.fileno(), 0o600)
                process = subprocess.Popen(  # noqa: S603  this interpreter with fixed words
                    [sys.executable, "-P", "-m", "service.local.daemon", f"--report={writing}", str(data_dir)],
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


def main() -> int:
    """Run the stack until a signal; exit 1 when the start failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--report", type=int, required=True)
    parser.add_argument("data_dir", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format=FORMAT)
    report = Report(options.report)
    try:
        run_here(Settings(), options.data_dir, report.event, report.ready)
    except (TesseraError, OSError) as error:
        report.failed(error)
        return 1
    finally:
        report.close()
    logger.info("drained")
    return 0


if __name__ == "__main__":
    sys.exit(main())
