"""A file system of a few hundred kilobytes, for a stack in a mount namespace of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

KIBIBYTES = 768
_MOUNT = f'mount -t tmpfs -o size={KIBIBYTES}k,mode=0700 tmpfs "$0" && exec "$@"'


def words_before(folder: Path) -> list[str]:
    """Return the words that, before a command, run it where `folder` is a small file system; [] where that is not
    allowed. An ordinary user gets the right to mount in a user namespace, in which he stays himself."""
    if shutil.which("unshare") is None:
        return []
    as_user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    words = ["unshare", *as_user, "--mount", "sh", "-c", _MOUNT, str(folder)]
    tried = subprocess.run([*words, "true"], capture_output=True, check=False)
    return words if tried.returncode == 0 else []


def files_inside(pid: int, folder: Path) -> list[str]:
    """Return the files below `folder` as a process sees them that runs there, by their relative paths."""
    root = Path(f"/proc/{pid}/root{folder}")
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
