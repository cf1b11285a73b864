"""The parser processes: a nursery that never sees a document, and the workers it forks.

`python -m ingestion.parse.child FD` is the nursery. It imports the parsers, leaves the network, and then waits on
the socket FD: each message asks for one worker and brings the two sockets to serve it with. A worker is
confined before it sees a byte, serves one batch of one tenant and dies with it, so nothing that a
document does to its process can touch another tenant's. Forking from a warm process costs a few milliseconds.

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
    hide_files,
    knows_calls,
    landlock_version,
    leave_network,
    limit_cpu,
    limit_resources,
)
from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.docx import parse_docx
from ingestion.parse.frames import MAX_DOCUMENTS, pack, pack_failure
from ingestion.parse.html import parse_html
from ingestion.parse.markdown import parse_markdown
from ingestion.parse.pdf import parse_pdf
from ingestion.parse.txt import parse_txt
from tenants.errors import DocumentRejected

Parser = Callable[[bytes, TextLimits], ParsedDocument]
PARSERS: Mapping[str, Parser] = {
    "txt": parse_txt,
    "markdown": parse_markdown,
    "html": parse_html,
    "pdf": parse_pdf,
    "docx": parse_docx,
}


@dataclass
class _Worker:
    pid: int
    pidfd: int
    asked: socket.socket


def main(parsers: Mapping[str, Parser] = PARSERS) -> None:
    """Run the nursery on the socket whose descriptor is the first argument, until its other end closes."""
    control = socket.socket(fileno=int(sys.argv[1]))
    layers = {
        "network namespace": leave_network(),
        "Landlock": landlock_version() >= 1,
        "seccomp filter": knows_calls(),
    }
    control.send(json.dumps({"missing": [name for name, there in layers.items() if not there]}).encode())
    gc.collect()
    gc.freeze()  # what the workers share is never touched, so never copied
    workers: dict[int, _Worker] = {}
    poller = select.poll()
    poller.register(control, select.POLLIN)
    while True:
        descriptor, _ = poller.poll()[0]  # one at a time: the next may be about a descriptor closed meanwhile
        if descriptor == control.fileno():
            worker = _admit(control, parsers)
            if worker is None:
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


def _admit(control: socket.socket, parsers: Mapping[str, Parser]) -> _Worker | None:
    """Fork a worker as asked; None when the service has gone."""
    message, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
    if not message:
        return None
    limits = json.loads(message)
    talk, asked = (socket.socket(fileno=descriptor) for descriptor in descriptors)
    pid = os.fork()
    if pid == 0:
        control.close()
        asked.close()
        _serve(talk, limits, parsers)
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


def _serve(talk: socket.socket, limits: Mapping[str, Any], parsers: Mapping[str, Parser]) -> NoReturn:
    """The life of a worker: confined, then one batch, one document after another."""
    os.setsid()
    os.dup2(1, 2)  # stderr, too, goes nowhere: native code may print what it reads
    sys.excepthook = partial(_die, talk)
    die_with_parent()
    limit_resources(int(limits["memory_bytes"]))
    hide_files(_interpreter_folders())
    forbid_calls()
    text_limits = TextLimits(int(limits["max_text_chars"]), int(limits["max_pages"]))
    message, descriptors, _, _ = socket.recv_fds(talk, 64 * MAX_DOCUMENTS, MAX_DOCUMENTS)
    for format_name, descriptor in zip(json.loads(message or b"[]"), descriptors, strict=True):
        limit_cpu(int(limits["cpu_s"]))
        with open(descriptor, "rb", buffering=0) as file:
            talk.sendall(pack(_parsed(file.read(), parsers[format_name], text_limits)))
    os._exit(0)


def _parsed(data: bytes, parser: Parser, limits: TextLimits) -> ParsedDocument | DocumentRejected:
    """A parser's answer. An error without a name here ends the worker, which is an answer, too."""
    try:
        return parser(data, limits)
    except DocumentRejected as rejected:
        return rejected
    except RecursionError:
        return DocumentRejected("The document is nested too deeply.")


def _die(talk: socket.socket, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Last words of a worker: what failed and where, without a word of the document."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace is not None else "?"
    with contextlib.suppress(OSError):
        talk.sendall(pack_failure(kind.__name__, place))
    os._exit(1)


def _interpreter_folders() -> list[str]:
    """Where Python may still load a codec from. Never the project's own folder: data may lie below it."""
    paths = sysconfig.get_paths()
    return [paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"]]


if __name__ == "__main__":
    main()
