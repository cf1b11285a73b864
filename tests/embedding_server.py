"""A small server of `/v1/embeddings`: hashed words in 64 dimensions. It can be told to fail, or to be slow."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIM = 64
NAME = "hashed-words"


def vector_of(text: str) -> NDArray[np.float32]:
    """Return the same vector for the same words."""
    found = np.full(DIM, 0.01, dtype=np.float32)
    for word in re.findall(r"\w+", text.lower()):
        digest = hashlib.sha256(word.encode()).digest()
        found += np.unpackbits(np.frombuffer(digest[: DIM // 8], dtype=np.uint8)).astype(np.float32) - 0.5
    unit: NDArray[np.float32] = found / np.linalg.norm(found)
    return unit


@dataclass
class EmbeddingServer:
    """Listens on a port of its own until closed."""

    failing: bool = False
    delay_s: float = 0.0
    asked: int = 0
    _server: ThreadingHTTPServer = field(init=False)

    def __post_init__(self) -> None:
        shared = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, answer = shared.answer(body)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Return what stands before `/embeddings`."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return status and body."""
        self.asked += 1
        time.sleep(self.delay_s)
        if self.failing:
            return 500, {"error": {"message": "out of memory"}}
        rows = [
            {"object": "embedding", "index": at, "embedding": vector_of(text).tolist()}
            for at, text in enumerate(body["input"])
        ]
        return 200, {"object": "list", "data": rows, "model": body["model"], "usage": {"prompt_tokens": 0}}

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
