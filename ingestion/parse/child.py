"""The parser processes: a nursery that never sees a document, and the workers it forks.

`main` is the nursery; `all_formats.py` and `text_formats.py` run it with the parsers that they import. It leaves the
network, and then waits on a socket: each message asks for one worker and brings the two sockets to serve it with. A
worker serves one batch of one tenant. It reads no document either: it forks a process for each, confined before it
sees a byte, and hands on exactly one answer of it. So nothing that a document does to its process can touch another
document, and forking from a warm process costs about a millisecond.

The nursery alone signals workers: it is their parent, so a process id cannot be anybody else's. Whoever asked
for a worker hangs up its second socket to have it killed, and reads from it how it ended.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, NoReturn

from ingestion.parse.confine import (
    die_with_parent,
    forbid_calls,
    forbid_children,
    fork,
    hide_files,
    keep_only,
    keep_to_itself,
    knows_calls,
    landlock_version,
    leave_network,
    limit_cpu,
    limit_resources,
)
from ingestion.parse.document import ParsedDocument, Recogniser, TextLimits
from ingestion.parse.frames import HEADER, MAX_DOCUMENTS, pack, pack_failure
from ingestion.parse.ocr import OcrUnavailable, open_recogniser
from ingestion.parse.rejections import rejected
from ingestion.parse.text_registry import Parser
from tenants.errors import DocumentRejected

_PIECE = 256 * 1024
_OCR_SHARE = 0.5
"""Of a document's CPU time, for its scanned pages; the rest of them are named as not read."""


@dataclass
class _Worker:
    pid: int
    pidfd: int
    asked: socket.socket


def main(parsers: Mapping[str, Parser]) -> None:
    """Run the nursery on the socket whose descriptor is the first argument, until its other end closes.

    The second argument says what pictures are read with: an object for `open_recogniser`, or null.
    """
    control = socket.socket(fileno=int(sys.argv[1]))
    layers = {
        "network namespace": leave_network(),
        "Landlock": landlock_version() >= 1,
        "seccomp filter": knows_calls(),
    }
    ocr, why_not = _recogniser(json.loads(sys.argv[2]))
    missing = [name for name, there in layers.items() if not there]
    control.send(json.dumps({"missing": missing, "no_ocr": why_not}).encode())
    gc.collect()
    gc.freeze()  # what the workers share is never touched, so never copied
    workers: dict[int, _Worker] = {}
    poller = select.poll()
    poller.register(control, select.POLLIN)
    while True:
        descriptor, _ = poller.poll()[0]  # one at a time: the next may be about a descriptor closed meanwhile
        if descriptor == control.fileno():
            worker = _admit(control, parsers, ocr)
            if worker is None:
                if ocr is not None:
                    ocr.close()
                return  # the workers die with their parent
            for key in (worker.pidfd, worker.asked.fileno()):
                workers[key] = worker
                poller.register(key, select.POLLIN)
            continue
        worker = workers[descriptor]
        for key in (worker.pidfd, worker.asked.fileno()):
            del workers[key]
            poller.unregister(key)
        if descriptor == worker.asked.fileno():
            _kill(worker.pid)  # hung up: nobody waits for it any more
        _bury(worker)


def _recogniser(wanted: Mapping[str, Any] | None) -> tuple[Recogniser | None, str | None]:
    """What reads pictures, or why nothing does; loaded here, so that every process has it and none may look for it."""
    if wanted is None:
        return None, None
    try:
        return open_recogniser(**wanted), None
    except OcrUnavailable as error:
        return None, str(error)


def _admit(control: socket.socket, parsers: Mapping[str, Parser], ocr: Recogniser | None) -> _Worker | None:
    """Fork a worker as asked; None when the service has gone."""
    message, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
    if not message:
        return None
    limits = json.loads(message)
    talk, asked = (socket.socket(fileno=descriptor) for descriptor in descriptors)
    pid = fork()
    if pid == 0:
        keep_only(talk.fileno())  # not the other workers' sockets and handles either
        _serve(talk, limits, parsers, ocr)
    talk.close()
    return _Worker(pid, os.pidfd_open(pid), asked)


def _kill(pid: int) -> None:
    for target in (os.killpg, os.kill):  # its group, or itself before it has made one
        with contextlib.suppress(ProcessLookupError, PermissionError):
            target(pid, signal.SIGKILL)


def _bury(worker: _Worker) -> None:
    """Reap a dead worker and tell who asked for it how it ended."""
    _, status, usage = os.wait4(worker.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):  # they hung up
        worker.asked.send(json.dumps({"exit": code, "peak_bytes": usage.ru_maxrss * 1024}).encode())
    worker.asked.close()
    os.close(worker.pidfd)


def _serve(
    talk: socket.socket, limits: Mapping[str, Any], parsers: Mapping[str, Parser], ocr: Recogniser | None
) -> NoReturn:
    """The life of a worker: one batch, a process for each document."""
    os.setsid()
    os.dup2(1, 2)  # stderr, too, goes nowhere: native code may print what it reads
    die_with_parent()
    keep_to_itself()
    limit_resources(int(limits["memory_bytes"]))
    hide_files(_interpreter_folders())
    text_limits = TextLimits(
        int(limits["max_text_chars"]),
        int(limits["max_pages"]),
        ocr=ocr,
        ocr_cpu_s=_OCR_SHARE * int(limits["cpu_s"]),
    )
    message, descriptors, _, _ = socket.recv_fds(talk, 64 * MAX_DOCUMENTS, MAX_DOCUMENTS)
    for at, (format_name, descriptor) in enumerate(zip(json.loads(message or b"[]"), descriptors, strict=True)):
        ours, theirs = os.pipe()
        pid = fork()
        if pid == 0:
            for other in (talk.detach(), ours, *descriptors[at + 1 :]):
                os.close(other)
            _parse(descriptor, theirs, limits, partial(_parsed, parser=parsers[format_name], limits=text_limits))
        os.close(theirs)
        os.close(descriptor)
        whole = _hand_on(ours, talk)
        os.close(ours)
        if whole:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if not whole:
            _end_like(status)
    os._exit(0)


def _hand_on(answers: int, talk: socket.socket) -> bool:
    """Pass on one answer and not a byte more: what follows it would be taken for the next document's."""
    head = b""
    while len(head) < HEADER.size:
        piece = os.read(answers, HEADER.size - len(head))
        if not piece:
            return False
        head += piece
    talk.sendall(head)
    left = sum(HEADER.unpack(head))
    while left:
        piece = os.read(answers, min(left, _PIECE))
        if not piece:
            return False
        talk.sendall(piece)
        left -= len(piece)
    return True


def _end_like(status: int) -> NoReturn:
    """End as the document's process did, so that the nursery's report is about that one."""
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL) if os.WTERMSIG(status) != signal.SIGKILL else None
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)


def _parse(
    descriptor: int,
    answers: int,
    limits: Mapping[str, Any],
    parse: Callable[[bytes], ParsedDocument | DocumentRejected],
) -> NoReturn:
    """The life of a document's process: confined, then that one document."""
    sys.excepthook = partial(_die, answers)
    die_with_parent()
    forbid_children()
    forbid_calls()
    limit_cpu(int(limits["cpu_s"]))
    with open(descriptor, "rb", buffering=0) as file:
        content = file.read()
    _send(answers, pack(parse(content)))
    os._exit(0)


def _send(answers: int, frame: bytes) -> None:
    view = memoryview(frame)
    while view:
        view = view[os.write(answers, view) :]


def _parsed(data: bytes, *, parser: Parser, limits: TextLimits) -> ParsedDocument | DocumentRejected:
    """A parser's answer. An error without a name here ends the process, which is an answer, too."""
    try:
        return parser(data, limits)
    except DocumentRejected as error:
        return error
    except RecursionError:
        return rejected("nested_too_deeply")


def _die(answers: int, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Last words of a process: what failed and where, without a word of the document."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace is not None else "?"
    with contextlib.suppress(OSError):
        _send(answers, pack_failure(kind.__name__, place))
    os._exit(1)


def _interpreter_folders() -> list[str]:
    """Where Python may still load a codec from. Never the project's own folder: data may lie below it."""
    paths = sysconfig.get_paths()
    return [paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"]]
