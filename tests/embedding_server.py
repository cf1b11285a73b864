"""A small server of `/v1/embeddings` and `/v1/rerank`: hashed words in 64 dimensions. It can be told to fail in every
way that such a server can."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
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


def _encoded(vector: NDArray[np.float32], as_base64: bool) -> str | list[float]:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode() if as_base64 else vector.tolist()


class Listener(ThreadingHTTPServer):
    """Lets as many wait to connect as a test may have at once."""

    request_queue_size = 64


@dataclass
class EmbeddingServer:
    """Listens on a port of its own until closed."""

    failing: bool = False
    delay_s: float = 0.0
    asked: int = 0
    key: str = ""
    """What callers must show, if anything."""
    most_texts: int = 1000
    """More in one request are refused with 413, as TEI does."""
    statuses: list[int] = field(default_factory=list)
    """What the next requests are answered with."""
    retry_after: str = ""
    spoil: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = field(default=lambda rows: rows)
    """What is made of the rows of an answer."""
    page: str = ""
    """What is answered instead of JSON, if anything."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """What was asked, since the list was last emptied."""
    most_at_once: int = 0
    certified: Path | None = None
    """Where `certify` wrote what it shows over TLS."""
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _server: ThreadingHTTPServer = field(init=False)

    def __post_init__(self) -> None:
        shared = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with shared._lock:
                    shared._now += 1
                    shared.most_at_once = max(shared.most_at_once, shared._now)
                status, answer = shared.answer(self.path, body, self.headers.get("Authorization", ""))
                with shared._lock:
                    shared._now -= 1
                content = (shared.page or json.dumps(answer)).encode()
                self.send_response(status)
                if status in (429, 503) and shared.retry_after:
                    self.send_header("Retry-After", shared.retry_after)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = Listener(("127.0.0.1", 0), Handler)
        if self.certified:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(self.certified / "server.pem", self.certified / "server.key")
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Return what stands before `/embeddings`."""
        return f"http{'s' if self.certified else ''}://127.0.0.1:{self._server.server_port}/v1"

    def answer(self, path: str, body: dict[str, Any], key: str) -> tuple[int, Any]:
        """Return status and body."""
        self.asked += 1
        self.bodies.append(body)
        time.sleep(self.delay_s)
        if self.failing:
            return 500, {"error": {"message": "out of memory"}}
        if self.statuses:
            return self.statuses.pop(0), {"error": {"message": "as I was told"}}
        if self.key and key != f"Bearer {self.key}":
            return 401, {"error": "Unauthorized"}
        if body.get("model") == "unknown":
            return 404, {"error": {"message": "The model does not exist."}}
        if len(body.get("input") or body.get("documents") or body["texts"]) > self.most_texts:
            return 413, {"error": f"batch size > maximum allowed batch size {self.most_texts}"}
        if any("untakable" in text for text in body.get("input", [])):
            return 400, {"error": {"message": f"untakable, says {self.url}"}}
        if path.endswith("/rerank"):
            return 200, self._reranked(body)
        base64_wanted = body.get("encoding_format") == "base64"
        rows = [
            {"object": "embedding", "index": at, "embedding": _encoded(vector_of(text), base64_wanted)}
            for at, text in enumerate(body["input"])
        ]
        return 200, {"object": "list", "data": self.spoil(rows), "model": body["model"], "usage": {"prompt_tokens": 0}}

    def _reranked(self, body: dict[str, Any]) -> Any:
        """Return the cosines of question and passages, the best first, in the form that was asked for."""
        of_tei = "texts" in body
        query = vector_of(body["query"])
        scores = [float(query @ vector_of(text)) for text in body["texts" if of_tei else "documents"]]
        named = "score" if of_tei else "relevance_score"
        rows: list[dict[str, Any]] = [{"index": at, named: score} for at, score in enumerate(scores)]
        rows = self.spoil(sorted(rows, key=lambda row: -row[named]))
        return rows if of_tei else {"results": rows}

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
