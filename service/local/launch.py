"""Become a child of the supervisor, then exec its program. Run as a script: `python -I -S launch.py ... -- PROGRAM`.

A process of its own instead of a `preexec_fn`, because code between fork and exec may deadlock in a process with
threads, and because what goes wrong here can be said in plain words in the child's log. Only the standard library.

How it can run as another account below a folder that this account cannot enter (a checkout below `/root`): one
capability, CAP_DAC_READ_SEARCH, is kept over the change of account and made ambient so that it outlives exec
(capabilities(7)). SECBIT_NO_SETUID_FIXUP stays set as well, because access(2), by which Postgres finds its own files,
drops all capabilities of an ordinary account without it.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 28, 38, 47
PR_CAP_AMBIENT_RAISE = 2
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SETPCAP = 1, 2, 8
CAPABILITY_VERSION_3 = 0x20080522
EXIT_NOT_ALLOWED = 77

MEND = (
    "Start it as an ordinary user, or allow the container CAP_SETPCAP with CAP_DAC_READ_SEARCH or CAP_DAC_OVERRIDE, "
    "or give the database by TESSERA_DATABASE_URL and TESSERA_DATABASE_WORKER_URL."
)

libc = ctypes.CDLL(None, use_errno=True)


class CapHeader(ctypes.Structure):
    """`__user_cap_header_struct` of capset(2)."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class CapData(ctypes.Structure):
    """`__user_cap_data_struct` of capset(2)."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def check(result: int, what: str) -> None:
    """Raise OSError with errno and the name of the step if a call of libc failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def prctl(what: str, option: int, *arguments: int) -> None:
    """Call prctl(2) with unused arguments as zero."""
    full = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    check(libc.prctl(option, *full), what)


def permitted() -> int:
    """Return the bit mask of the capabilities this process may use."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1], 16) for line in status if line.startswith("CapPrm"))


def keep_only(capability: int) -> None:
    """Drop every capability but one, and let that one outlive exec."""
    mask = 1 << capability
    header = CapHeader(CAPABILITY_VERSION_3, 0)
    data = (CapData * 2)(CapData(mask, mask, mask), CapData(0, 0, 0))
    check(libc.capset(ctypes.byref(header), ctypes.byref(data)), "capset")
    prctl("ambient capability", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def become(uid: int, gid: int) -> None:
    """Change to another account, still able to read below folders that only root may enter.

    CAP_DAC_OVERRIDE is the second choice: common container runtimes grant it and not CAP_DAC_READ_SEARCH.
    """
    held = permitted()
    wanted = next((c for c in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE) if held >> c & 1), None)
    if wanted is None:
        raise OSError(1, "neither CAP_DAC_READ_SEARCH nor CAP_DAC_OVERRIDE is permitted here")
    os.setgroups([gid])
    prctl("secure bits", PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    keep_only(wanted)


def die_with(parent: int, number: int) -> None:
    """Ask for a signal when the parent dies, and leave at once if it is already gone.

    After `become`, because a change of account clears the request.
    """
    prctl("death signal", PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        raise SystemExit(f"the supervisor {parent} is gone")


def reset_signals() -> None:
    """Undo what a shell or a test runner left: a background job starts with SIGINT ignored, and exec keeps that."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def main(arguments: Sequence[str]) -> None:
    """Parse, become, exec. Exits 77 with a sentence on standard error if the machine does not allow it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--death-signal", type=int, required=True)
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    parser.add_argument("program", nargs="+")
    options = parser.parse_args(arguments)
    reset_signals()
    os.umask(0o077)
    try:
        if options.uid is not None:
            become(options.uid, options.gid)
        prctl("no new privileges", PR_SET_NO_NEW_PRIVS, 1)
        die_with(options.parent, options.death_signal)
        os.execv(options.program[0], options.program)  # noqa: S606  a fixed program from the caller's specification
    except OSError as error:
        account = f" as account {options.uid}" if options.uid is not None else ""
        print(f"cannot start {options.program[0]}{account}: {error}. {MEND if account else ''}", file=sys.stderr)  # noqa: T201
        raise SystemExit(EXIT_NOT_ALLOWED) from error


if __name__ == "__main__":
    main(sys.argv[1:])
