"""Run a server that listens on all addresses where nobody but this machine's loopback can reach it.

Run as a script: `python -I -S enclosure.py --forward OUTER=INNER ... -- PROGRAM ...`. The program gets a network of its
own (network_namespaces(7), allowed to an ordinary account by a user namespace) with nothing but a loopback interface.
A socket stays in the namespace in which it was made: the listening sockets are made on 127.0.0.1 before this process
changes over, so it accepts outside and connects inside. Only the standard library.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
PR_SET_PDEATHSIG = 1
LOOPBACK = "127.0.0.1"
BACKLOG = 512
EXIT_NOT_ALLOWED = 77

libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """This machine does not allow it; the text says what."""


def enclose() -> None:
    """Move this process into a user and a network namespace of its own, with the loopback interface up.

    Raises:
        Refused: the kernel or the container forbids it.
    """
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        raise Refused(
            f"a network of its own is not allowed here ({os.strerror(ctypes.get_errno())}): allow user namespaces, on "
            "Debian `sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000`, in a container by its "
            "seccomp profile"
        )
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1", encoding="ascii")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def listener(port: int) -> socket.socket:
    """Listen on a port of 127.0.0.1 in the namespace of this moment."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((LOOPBACK, port))
    made.listen(BACKLOG)
    made.setblocking(False)
    return made


class Pipe(asyncio.Protocol):
    """One end of a forwarded connection: what it receives goes to the other end, no faster than that takes it."""

    def __init__(self) -> None:
        self.other: Pipe | None = None
        self.transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._ended = False
        """Whether everything was written to it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send small messages at once."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def join(self, other: Pipe) -> None:
        """Make two ends one connection; what came before is handed on."""
        self.other, other.other = other, self
        for end in (self, other):
            for data in end._early:
                end.data_received(data)
            end._early.clear()

    def data_received(self, data: bytes) -> None:
        """Hand on, or keep until there is another end."""
        if self.other is None:
            self._early.append(data)
        elif self.other.transport is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        """Hand on the end of what is sent; answers may still come."""
        if self.other and self.other.transport:
            self.other.transport.write_eof()
            self.other._ended = True
        return not self._ended  # with nothing left to write either, the connection is over

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other end, after what it has yet to send."""
        if self.other and self.other.transport:
            self.other.transport.close()

    def pause_writing(self) -> None:
        """Read no more for a while: this end takes no more."""
        if self.other and self.other.transport:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        if self.other and self.other.transport:
            self.other.transport.resume_reading()


async def forward(outer: socket.socket, inner: int) -> None:
    """Accept for ever, and join each connection with one to the port inside; refused inside is hung up outside."""
    loop = asyncio.get_running_loop()

    async def join(accepted: socket.socket) -> None:
        try:
            _, inside = await loop.create_connection(Pipe, LOOPBACK, inner)
        except OSError:
            accepted.close()
            return
        _, outside = await loop.connect_accepted_socket(Pipe, accepted)
        outside.join(inside)

    joining: set[asyncio.Task[None]] = set()
    while True:
        accepted, _ = await loop.sock_accept(outer)
        task = asyncio.create_task(join(accepted))
        joining.add(task)
        task.add_done_callback(joining.discard)


def start(program: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the program inside; it ends when this process does."""

    def die_with_parent() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    return subprocess.Popen(program, preexec_fn=die_with_parent)  # noqa: S603  one thread; a fixed program


async def keep(forwards: dict[socket.socket, int], program: Sequence[str]) -> int:
    """Forward until the program ends, hand on SIGTERM and SIGINT to it; return its exit status."""
    process = start(program)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.send_signal, number)
    tasks = [asyncio.create_task(forward(outer, inner)) for outer, inner in forwards.items()]
    ended = asyncio.Event()
    loop.add_reader(os.pidfd_open(process.pid), ended.set)
    await ended.wait()
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return process.wait()


def main(arguments: Sequence[str]) -> int:
    """Enclose, start, forward; without a program only try whether this machine allows it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--forward", action="append", default=[], metavar="OUTER=INNER")
    parser.add_argument("program", nargs="*")
    options = parser.parse_args(arguments)
    ports = [tuple(map(int, pair.split("="))) for pair in options.forward]
    forwards = {listener(outer): inner for outer, inner in ports}
    try:
        enclose()
    except (Refused, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201  its last words
        return EXIT_NOT_ALLOWED
    if not options.program:
        return 0
    status = asyncio.run(keep(forwards, options.program))
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
