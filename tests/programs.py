"""Programs that tests start themselves, as the supervisor starts its own: by the launcher, so that one below a folder
that only root may enter can run as an ordinary account, and none outlives the tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.local.account import Account
from service.local.child import launched


@dataclass(frozen=True)
class Program:
    """A program, and the variables that it needs beside the test's own (`tests.servers` has both)."""

    path: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def beside(self, name: str) -> Program:
        """Return another program of the same folder."""
        return Program(self.path.with_name(name), self.environment)

    def run(self, words: Sequence[str], account: Account | None = None) -> None:
        """Run it to its end, which must be a good one."""
        command = launched([str(self.path), *words], account)
        subprocess.run(command, env=self._environment(), cwd="/", check=True, capture_output=True)

    def start(self, words: Sequence[str], log: Path, account: Account | None = None) -> subprocess.Popen[bytes]:
        """Start it, what it says appended to a log."""
        command = launched([str(self.path), *words], account)
        with log.open("ab") as said:
            return subprocess.Popen(command, env=self._environment(), cwd="/", stdout=said, stderr=said)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.environment}


def given(entry: Mapping[str, object], other: Path | str | None) -> Program | None:
    """Return the program of a server's entry, else another of this machine; None without either."""
    path = entry.get("program") or other
    environment = entry.get("environment")
    return Program(Path(str(path)), environment if isinstance(environment, dict) else {}) if path else None
