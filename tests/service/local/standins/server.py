"""A small server with bad habits on request: what the supervisor is tried on."""

import argparse
import http.server
import pathlib
import signal
import subprocess
import sys
import threading
import time

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--name", default="standin")
parser.add_argument("--journal", help="file that gets a line at the start and at SIGTERM")
parser.add_argument("--touch", help="file that it touches as long as it lives")
parser.add_argument("--slow", type=float, default=0.0, help="seconds until it listens")
parser.add_argument("--die", action="store_true", help="end at once with status 3 and a last word")
parser.add_argument("--stubborn", action="store_true", help="ignore SIGTERM")
parser.add_argument("--offspring", action="store_true", help="start a child that outlives it")
options = parser.parse_args()


def note(word: str) -> None:
    if options.journal:
        with open(options.journal, "a", encoding="utf-8") as journal:
            journal.write(f"{word} {options.name}\n")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def touch() -> None:
    while True:
        pathlib.Path(options.touch).touch()
        time.sleep(0.02)


def leave(number: int, frame: object) -> None:
    note("stop")
    sys.exit(0)


if options.die:
    sys.stdout.write(f"the last word of {options.name}\n")
    sys.stdout.flush()
    sys.exit(3)
signal.signal(signal.SIGTERM, signal.SIG_IGN if options.stubborn else leave)
if options.offspring:
    forever = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", forever])
time.sleep(options.slow)
server = http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
note("start")
if options.touch:
    threading.Thread(target=touch, daemon=True).start()
while True:
    signal.pause()
