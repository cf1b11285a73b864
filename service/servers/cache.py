"""Programs that are fetched once for all checkouts: a folder each, whole or not counted."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

WHOLE = ".whole"
"""Is written last; a folder without it is what an interrupted fetch left."""


@dataclass(frozen=True)
class Cache:
    """Where what is fetched is kept, and who is told of it."""

    folder: Path
    say: Callable[[str], None]

    def has(self, name: str) -> bool:
        """Say whether this folder is there and whole."""
        return (self.folder / name / WHOLE).exists()

    def once(self, name: str, made_of: str, make: Callable[[Path], None]) -> Path:
        """Return the folder `name`, made first if need be. Of two processes at the same time, the second waits.

        Args:
            name: what is inside with its version, so that another version is another folder.
            made_of: what is fetched for it, in words, for whoever waits.
            make: fills the empty folder; the folder does not move afterwards, for environments know their place.
        """
        folder = self.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            if not self.has(name):
                self.say(f"fetching {made_of}")
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                (folder / WHOLE).touch()
        return folder
