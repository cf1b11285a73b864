"""Set up `.venv`: exactly the locked packages, then Tessera itself. `make` runs it before everything else.

Runs on the system's Python with its standard library alone. Before it downloads it says what and how much; when
nothing has changed since the last time it ends at once. pip, with the user's own configuration, fetches uv; uv, told of
the same configuration, fetches the rest side by side, several times as fast. Where uv cannot, pip does.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
UV = VENV / "bin" / "uv"
BASE = ROOT / "requirements.lock"
DEV = ROOT / "requirements-dev.lock"
IMAGE = ROOT / "requirements-image.lock"
PROJECT = ROOT / "pyproject.toml"
SUPPORTED = ((3, 11), (3, 12))
PIP_INSTALL = (str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check")
LOCKED = ("--require-hashes", "--no-deps", "--only-binary", ":all:")

UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
}
"""pip's settings, which uv does not read, and the variables that tell uv the same."""


class Block(NamedTuple):
    """One package of a lock. `text` is its lines: `name==version ; marker`, then the hashes."""

    name: str
    marker: str
    text: str


class Failed(Exception):
    """Set-up cannot go on; the text says why and what to do."""


def main(arguments: Sequence[str]) -> int:
    """Bring `.venv` up to date, with the tools of tests for `--dev`. Returns the exit status."""
    wanted = [BASE, DEV, PROJECT] if "--dev" in arguments else [BASE, PROJECT]
    try:
        check_python()
        with BASE.open() as held:
            # Of two at the same time the second waits, and then finds everything done.
            fcntl.flock(held, fcntl.LOCK_EX)
            set_up(wanted)
    except Failed as failure:
        sys.stderr.write(f"set-up: {failure}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("set-up: interrupted; the next run goes on from here\n")
        return 130
    return 0


def check_python() -> None:
    """Raise Failed unless this Python is one with wheels for all, and can make virtual environments."""
    if sys.version_info[:2] not in SUPPORTED:
        raise Failed(f"Python 3.11 or 3.12 is needed and this is {version()}; name another: make PYTHON=python3.11 up")
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        raise Failed("this Python cannot make virtual environments; on Debian: apt-get install python3-venv")


def version(parts: int = 3) -> str:
    """Return this Python's version."""
    return ".".join(map(str, sys.version_info[:parts]))


def set_up(wanted: Sequence[Path]) -> None:
    """Install what has changed of the locks and the project, and note it."""
    changed = [path for path in wanted if not is_done(path)]
    if not changed:
        return
    locks = [path for path in changed if path != PROJECT]
    if locks:
        announce(locks)
    make_environment()
    if locks:
        fetch(locks)
        note(locks)
    # Editable: the checkout itself is imported. The build backend is in the lock, so nothing is fetched for it.
    install(["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)])
    note([PROJECT])
    if locks:
        say("Set-up is complete.")


def note(done: Sequence[Path]) -> None:
    """Remember the state of these files as installed."""
    for path in done:
        stamp(path).write_text(digest(path))


def is_done(path: Path) -> bool:
    """Whether `.venv` holds what the lock or project file says now."""
    return stamp(path).is_file() and stamp(path).read_text() == digest(path)


def stamp(path: Path) -> Path:
    """Return the file that says which state of `path` is installed."""
    return VENV / f".installed-{path.name}"


def digest(path: Path) -> str:
    """Return what changes with the file, with this Python and with the folder."""
    return hashlib.sha256(b"\0".join((path.read_bytes(), sys.version.encode(), bytes(ROOT)))).hexdigest()


def announce(locks: Sequence[Path]) -> None:
    """Say what is to be downloaded. Raises Failed if the disk cannot hold it."""
    weights = [announced(lock.read_text()) for lock in locks]
    wheels, download, unpacked = (sum(column) for column in zip(*weights, strict=True))
    say(f"Setting up {VENV} with Python {version()}, from {' and '.join(lock.name for lock in locks)}.")
    if not wheels:
        say(f"The locked packages are downloaded; their size on Python {version(2)} is not known.")
        return
    say(f"To download: {wheels} wheels, {download / 1e6:.0f} MB (less what pip or uv have cached).")
    say(f"On the disk: {unpacked / 1e6:.0f} MB.")
    free = shutil.disk_usage(ROOT).free
    if free < unpacked + download:
        raise Failed(f"the disk has {free / 1e6:.0f} MB free, and {(unpacked + download) / 1e6:.0f} MB are needed")


def announced(text: str) -> tuple[int, int, int]:
    """Return wheels, bytes to download and bytes unpacked that a lock's head gives for this Python, or zeros."""
    pattern = rf"^# linux x86-64 python {re.escape(version(2))}: (\d+) wheels, (\d+) bytes, (\d+) unpacked$"
    found = re.search(pattern, text, re.MULTILINE)
    return (int(found[1]), int(found[2]), int(found[3])) if found else (0, 0, 0)


def make_environment() -> None:
    """Make `.venv`; make it anew if it is unfinished, another Python's, or was moved here."""
    home = VENV / ".made-at"
    if PYTHON.exists() and (not home.is_file() or home.read_text() == str(ROOT)):
        probe = [str(PYTHON), "-c", "import pip, sys; sys.stdout.write(sys.version)"]
        if subprocess.run(probe, capture_output=True, text=True, check=False).stdout == sys.version:
            return
    run([sys.executable, "-m", "venv", "--clear", str(VENV)], "the virtual environment could not be made")
    home.write_text(str(ROOT))


def fetch(locks: Sequence[Path]) -> None:
    """Install every package of the locks: uv by pip, then the others by uv."""
    if not UV.exists():
        first = VENV / "uv.txt"
        first.write_text("".join(block.text + "\n" for block in blocks(BASE.read_text()) if block.name == "uv"))
        run([*PIP_INSTALL, *LOCKED, "--quiet", "-r", str(first)], "pip could not fetch uv")
        first.unlink()
    install([*LOCKED, *(word for lock in locks for word in ("-r", str(lock)))])


def install(words: Sequence[str]) -> None:
    """Install by uv, or else by pip. Raises Failed if neither can."""
    spare = VENV / "uv-cache"
    environment = {**uv_settings(), **os.environ}
    if not cache_is_writable():
        environment["UV_CACHE_DIR"] = str(spare)
    by_uv = [str(UV), "pip", "install", "--python", str(PYTHON), *words]
    done = subprocess.run(by_uv, env=environment, check=False).returncode == 0
    shutil.rmtree(spare, ignore_errors=True)
    if not done:
        say("uv could not do it: pip takes over, more slowly.")
        run([*PIP_INSTALL, *words], "pip could not do it either")


def cache_is_writable() -> bool:
    """Whether uv can keep a cache where it does for this user."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uv"
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    return os.access(nearest, os.W_OK)


def uv_settings() -> dict[str, str]:
    """Return as variables for uv what the user has told pip, in files or in PIP_* variables."""
    command = [str(PYTHON), "-m", "pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    # With several indexes take the file that has the right hash wherever it lies, as pip does.
    found = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    for section in ("global", "install", ":env:"):
        for key, value in re.findall(rf"^{section}\.([a-z-]+)=(.+)$", listing, re.MULTILINE):
            if key in UV_NAMES:
                between = "," if key == "find-links" else " "
                found[UV_NAMES[key]] = between.join(str(ast.literal_eval(value)).split())
    return found


def blocks(text: str) -> list[Block]:
    """Return the packages of a lock in its order."""
    found = []
    for lines in re.findall(r"^[A-Za-z0-9].*(?:\n[ \t]+.*)*", text, re.MULTILINE):
        requirement, _, marker = lines.split("\n")[0].rstrip(" \\").partition(" ; ")
        found.append(Block(requirement.split("==")[0], marker.strip(), lines))
    return found


def run(command: Sequence[str], failure: str) -> None:
    """Run a command that shows its own output. Raises Failed."""
    code = subprocess.run(command, check=False).returncode
    if code != 0:
        raise Failed(f"{failure} (exit status {code}, see above)")


def say(text: str) -> None:
    """Tell the user."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
