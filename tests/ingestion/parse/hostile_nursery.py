"""A nursery whose parsers do what a hostile document might make one do. Started by test_sandbox.py."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ingestion.parse.child import main
from ingestion.parse.document import Block, ParsedDocument, TextLimits
from ingestion.parse.registry import PARSERS

_seen: list[str] = []


def _document(text: str) -> ParsedDocument:
    return ParsedDocument(text, (Block("paragraph", 0, len(text)),), None, None, "txt")


def fault(data: bytes, limits: TextLimits) -> ParsedDocument:
    return _document(str(ctypes.string_at(0)))


def leave(data: bytes, limits: TextLimits) -> ParsedDocument:
    os._exit(0)


def bug(data: bytes, limits: TextLimits) -> ParsedDocument:
    raise KeyError(data.decode())


def spin(data: bytes, limits: TextLimits) -> ParsedDocument:
    while True:
        pass


def sleep(data: bytes, limits: TextLimits) -> ParsedDocument:
    time.sleep(float(data))
    return _document("slept")


def hog(data: bytes, limits: TextLimits) -> ParsedDocument:
    return _document(str(len(bytearray(10**9))))


def leak(data: bytes, limits: TextLimits) -> ParsedDocument:
    held: list[bytes] = []
    while True:
        held.append(os.urandom(64) * 16384)


def deep(data: bytes, limits: TextLimits) -> ParsedDocument:
    return deep(data, limits)


def alone(data: bytes, limits: TextLimits) -> ParsedDocument:
    """Fails unless it is the first document of its process."""
    _seen.append("alone")
    if len(_seen) > 1:
        raise ValueError
    return _document("alone")


def lie(data: bytes, limits: TextLimits) -> ParsedDocument:
    return ParsedDocument("short", (Block("paragraph", 0, 1_000_000),), None, None, "txt")


def flood(data: bytes, limits: TextLimits) -> ParsedDocument:
    return _document("x" * (limits.max_text_chars * 5))


def look(data: bytes, limits: TextLimits) -> ParsedDocument:
    """What a taken-over parser could reach."""
    reached = {
        "environment": lambda: sorted(os.environ),
        "file": lambda: Path(data.decode()).read_text(),
        "folder": lambda: os.listdir("/"),
        "other": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes().decode(),
        "write": lambda: Path(data.decode()).write_text("mine"),
        "tcp": lambda: str(socket.create_connection(("127.0.0.1", 1), timeout=1)),
        "unix": lambda: str(socket.socket(socket.AF_UNIX)),
        "fork": os.fork,
        "program": lambda: os.execv("/bin/true", ["true"]),
        "kill": lambda: os.kill(os.getppid(), 0),
        "leave the group": os.setsid,
        "signal": lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1),
        "documents": lambda: sum(map(_is_file, range(3, 256))),
        "handles": lambda: sum(map(_is_open, range(3, 256))),
        "codec": lambda: "渡".encode("cp949").decode("cp949"),
    }
    return _document(json.dumps({name: _tried(call) for name, call in reached.items()}))


def _is_open(descriptor: int) -> bool:
    try:
        return bool(os.fstat(descriptor))
    except OSError:
        return False


def _is_file(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _tried(call: Callable[[], object]) -> object:
    try:
        return call()
    except OSError as error:
        return f"refused: {type(error).__name__}"


_HOSTILE = (fault, leave, bug, spin, sleep, hog, leak, deep, alone, lie, flood, look)

if __name__ == "__main__":
    main({**PARSERS, **{parser.__name__: parser for parser in _HOSTILE}})
