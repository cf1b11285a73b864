"""`make test-servers`: the real servers, the tests of the stack on them, every suite on each of them, and their end.

Run as `python -m tests.on_servers [--again] [arguments of pytest]`. The servers are its own, in a new folder of data;
with TESSERA_TEST_SERVERS given, those of that file are used and left running. The tests of the stack come first, when
nothing else lies on the servers, and in one process: the checks of a whole installation allow no other beside it. With
`--again` what fails is run once more by itself, and named: servers are slow on a busy machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from service.servers.addresses import FILE
from service.settings import Settings
from tests.checkers import add_checkers
from tests.server_marks import LOCAL_ALONE
from tests.servers import VARIABLE

TESSERA = (sys.executable, "-c", "from service.cli.main import main; main()")
PYTEST = (sys.executable, "-m", "pytest")
PARTS = {
    "the stack on real servers": ("-m", "stack"),
    "every suite on every real server": ("-m", "servers", "-n", "2", "--dist", "loadfile"),
}
AGAIN = "--again"
ONCE_MORE = ("-n", "0", "--last-failed", "--last-failed-no-failures", "none", "--maxfail", "1", "-rp")
FAILED, NOTHING_TO_DO = 1, 5
"""What pytest ends with when tests failed, and when no test was chosen."""


def main(arguments: list[str]) -> int:
    """Run both parts; return the first exit status that is not 0."""
    given = os.environ.get(VARIABLE)
    if given:
        return run_parts(Path(given), arguments)
    folder = Settings().servers.dir.absolute().with_name("test-servers")
    environment = {**os.environ, "TESSERA_SERVERS_DIR": str(folder)}
    subprocess.run([*TESSERA, "servers", "down"], env=environment, check=True)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        started = subprocess.run([*TESSERA, "servers", "up", "--all"], env=environment, check=False).returncode
        return started or run_parts(folder / FILE, arguments)
    finally:
        subprocess.run([*TESSERA, "servers", "down"], env=environment, check=True)


def run_parts(file: Path, arguments: list[str]) -> int:
    """Run both parts with these servers, and with the programs that check files of the deployment."""
    add_checkers(file)
    for place, reason in LOCAL_ALONE.items():
        print(f"stays on the local stack: {place} {reason}")
    again = AGAIN in arguments
    arguments = [word for word in arguments if word != AGAIN]
    statuses = []
    for name, words in PARTS.items():
        print(f"== {name}", flush=True)
        began = time.monotonic()
        status = run_part([*words, *arguments], {**os.environ, VARIABLE: str(file)}, again=again)
        print(f"== {name}: {time.monotonic() - began:.0f} s, exit status {status}", flush=True)
        statuses.append(verdict(status, arguments))
    return next((status for status in statuses if status), 0)


def run_part(words: list[str], environment: dict[str, str], *, again: bool) -> int:
    """Run pytest, and `again` those that failed, the first of which that fails again ends it. Return its status."""
    status = subprocess.run([*PYTEST, *words], env=environment, check=False).returncode
    if status != FAILED or not again:
        return status
    print("== what failed, once more by itself", flush=True)
    once_more = subprocess.run([*PYTEST, *words, *ONCE_MORE], env=environment, check=False).returncode
    return FAILED if once_more == NOTHING_TO_DO else once_more


def verdict(status: int, arguments: list[str]) -> int:
    """Return what an exit status of pytest says of a part: arguments such as `-k` may choose nothing of it."""
    return 0 if status == NOTHING_TO_DO and arguments else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
