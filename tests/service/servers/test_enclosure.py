"""A server that listens on all addresses is reached through its forwarder, and in no other way."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from service.local.ports import LOOPBACK, free_port
from service.servers.milvus import ENCLOSURE, SCRIPT

INNER = 19530
ECHO = f"""
import socket, threading
listening = socket.create_server(("0.0.0.0", {INNER}), backlog=64)
def serve(connection):
    received = bytearray()
    while part := connection.recv(65536):
        received += part
    connection.sendall(b"got " + bytes(received))
    connection.close()
while True:
    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""
LARGE = 32 * 1024 * 1024
"""More than the buffers of four sockets hold."""


@pytest.fixture(scope="module", autouse=True)
def allowed() -> None:
    tried = subprocess.run([*SCRIPT, str(ENCLOSURE)], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(tried.stderr.strip())


@dataclass
class Enclosed:
    port: int
    process: subprocess.Popen[bytes]

    def program(self) -> psutil.Process:
        return psutil.Process(self.process.pid).children()[0]

    def ask(self, question: bytes) -> bytes:
        """Send everything, say that it is over, and read the whole answer."""
        with socket.create_connection((LOOPBACK, self.port), 30) as connection:
            connection.sendall(question)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))


def enclosed(port: int, *program: str) -> Enclosed:
    words = [*SCRIPT, str(ENCLOSURE), f"--forward={port}={INNER}", "--", *program]
    return Enclosed(port, subprocess.Popen(words))


@pytest.fixture(scope="module")
def echo() -> Iterator[Enclosed]:
    running = enclosed(free_port(), sys.executable, "-c", ECHO)
    for _ in range(300):
        try:
            if running.ask(b"") == b"got ":
                break
        except ConnectionError:
            pass
        time.sleep(0.05)
    else:
        raise AssertionError("it does not answer")
    yield running
    running.process.kill()
    running.process.wait()


def test_what_is_sent_arrives_and_the_answer_comes_after_the_end(echo: Enclosed) -> None:
    assert echo.ask(b"amber") == b"got amber"


def test_more_than_the_buffers_hold_arrives_whole(echo: Enclosed) -> None:
    answer = echo.ask(b"0123456789abcdef" * (LARGE // 16))
    assert len(answer) == LARGE + 4
    assert answer[4:20] == b"0123456789abcdef"


def test_nobody_outside_reaches_the_port_inside(echo: Enclosed) -> None:
    inside = Path(f"/proc/{echo.program().pid}/net/tcp").read_text(encoding="ascii")
    assert f"00000000:{INNER:04X} " in inside, "it listens on all addresses of its own network"
    outside = [line.split()[1] for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    assert f"0100007F:{echo.port:04X}" in outside
    assert not any(address.endswith(f":{echo.port:04X}") and not address.startswith("0100007F") for address in outside)
    assert f"00000000:{INNER:04X}" not in outside


def test_connections_that_nobody_takes_inside_are_hung_up() -> None:
    running = enclosed(free_port(), "/bin/sleep", "60")
    try:
        for _ in range(200):
            try:
                with socket.create_connection((LOOPBACK, running.port), 5) as connection:
                    assert connection.recv(1) == b""
                return
            except ConnectionRefusedError:
                time.sleep(0.05)
        raise AssertionError("it never listened")
    finally:
        running.process.kill()
        running.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_program_ends_with_its_forwarder(number: signal.Signals) -> None:
    running = enclosed(free_port(), "/bin/sleep", "60")
    for _ in range(200):
        if psutil.Process(running.process.pid).children():
            break
        time.sleep(0.05)
    program = running.program()
    running.process.send_signal(number)
    assert running.process.wait(10) in (-number, 128 + number)
    program.wait(10)


def test_its_exit_status_is_that_of_the_program() -> None:
    running = enclosed(free_port(), "/bin/sh", "-c", "exit 7")
    assert running.process.wait(10) == 7
