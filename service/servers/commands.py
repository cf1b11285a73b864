"""Programs that fetch and build, run to their end."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from service.servers.settings import surroundings
from tenants.errors import Unavailable


class FetchFailed(Unavailable):
    """Something could not be fetched or built; nothing half-made is kept."""

    code = "fetch_failed"
    title = "A server could not be fetched"


def run(words: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a program with the user's own environment, `env` beside it; return its standard output.

    Raises:
        FetchFailed: it ended with another status than 0; with the end of what it said.
    """
    environment = {**surroundings(), **(env or {})}
    ended = subprocess.run(  # noqa: S603  lists of words, no shell
        list(words), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if ended.returncode != 0:
        said = " | ".join((ended.stderr or ended.stdout).strip().splitlines()[-5:])
        raise FetchFailed(f"`{' '.join(words[:6])} ...` ended with status {ended.returncode}: {said}")
    return ended.stdout
