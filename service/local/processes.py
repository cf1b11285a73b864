"""Processes of this machine: who they are, what belongs to them, how they end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
START_FIELD, SESSION_FIELD, STATE_FIELD = 19, 3, 0
LISTENING = "0A"


def stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name (state first), or [] when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()


def identity(pid: int) -> str:
    """Return what tells this process from a later one with the same number, or "" when it is gone (or a zombie)."""
    fields = stat_fields(pid)
    if not fields or fields[STATE_FIELD] == "Z":
        return ""
    return f"{BOOT_ID.read_text(encoding='ascii').strip()}:{fields[START_FIELD]}"


def is_alive(pid: int, who: str) -> bool:
    """Say whether the process that had this number and identity still runs."""
    return bool(who) and identity(pid) == who


def session_members(session: int) -> list[int]:
    """Return the processes of a session; each child of the supervisor leads one."""
    members = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = stat_fields(int(entry))
            if fields and int(fields[SESSION_FIELD]) == session and fields[STATE_FIELD] != "Z":
                members.append(int(entry))
    return members


def tree(pid: int) -> dict[int, str]:
    """Return number -> identity of a process, its descendants, and all that is left of the session it leads.

    Both, because Postgres gives each backend a session of its own, and because a descendant whose parent has died
    is nobody's descendant any more.
    """
    members = {pid, *session_members(pid)}
    with contextlib.suppress(psutil.NoSuchProcess):
        members.update(child.pid for child in psutil.Process(pid).children(recursive=True))
    return {member: who for member in members if (who := identity(member))}


def session_tree(pid: int, who: str) -> dict[int, str]:
    """Return the tree of a recorded child, even when the child itself has died, or {} when nothing of it is left.

    The kernel gives nobody a number that a session still uses. So with the leader dead, members of the session are
    ours, unless they are older than the leader or of another boot.
    """
    if is_alive(pid, who):
        return tree(pid)
    if identity(pid):
        return {}
    boot, _, started = who.partition(":")
    left: dict[int, str] = {}
    for member in session_members(pid):
        found = identity(member)
        if found.partition(":")[0] == boot and int(found.partition(":")[2] or 0) >= int(started or 0):
            left |= tree(member)
    return left


def alive(members: dict[int, str]) -> dict[int, str]:
    """Return those that still run."""
    return {pid: who for pid, who in members.items() if is_alive(pid, who)}


def send(members: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to processes that may have ended in the meantime."""
    for pid in members:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def wait_gone(members: dict[int, str], timeout_s: float) -> dict[int, str]:
    """Block until all have ended, at most so many seconds; return what still runs."""
    deadline = time.monotonic() + timeout_s
    while (left := alive(members)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def kill(members: dict[int, str], timeout_s: float = 5.0) -> dict[int, str]:
    """Kill processes and wait for their end; return what still runs (stuck in the kernel)."""
    send(alive(members), signal.SIGKILL)
    return wait_gone(members, timeout_s)


def resident_bytes(pid: int, *, descendants: bool = True) -> int:
    """Return the resident memory of a whole tree in bytes; pages shared by several of its processes count in each."""
    total = 0
    for member in tree(pid) if descendants else (pid,):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += psutil.Process(member).memory_info().rss
    return total


def listens(members: Iterable[int], port: int) -> bool:
    """Say whether one of these processes listens on a TCP port. True as well where this account may not look."""
    sockets = set()
    for pid in members:
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                    sockets.add(os.readlink(f"/proc/{pid}/fd/{name}"))
        except PermissionError:
            return True
        except (FileNotFoundError, ProcessLookupError):
            continue
    return any(f"socket:[{inode}]" in sockets for inode in _listeners(port))


def _listeners(port: int) -> list[str]:
    """Return the inodes of the sockets that listen on a port, by the kernel's table (proc(5), /proc/net/tcp)."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                _, local, _, state, *rest = line.split()
                if state == LISTENING and int(local.rpartition(":")[2], 16) == port:
                    found.append(rest[5])
    return found


def working_in(folder: Path) -> list[int]:
    """Return the processes whose working folder is this one, of those that this account may look at."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{entry}/cwd") == str(folder.resolve()):
                    found.append(int(entry))
    return found
