"""A web site on loopback that a test writes to: pages with ETags, redirects, packed and endless answers."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """An answer. `endless` repeats the body for ever; the body of one that is `packed` is gzip."""

    body: bytes = b""
    media_type: str = "text/html; charset=utf-8"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    etag: bool = True
    packed: bool = False
    endless: bool = False
    wait: threading.Event | None = None
    """The answer waits for it."""


@dataclass
class Site:
    """The pages by path, and what was asked: path and headers of each request."""

    url: str = ""
    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def put(self, path: str, body: str | bytes, **options: object) -> None:
        """Put a page there."""
        content = body.encode() if isinstance(body, str) else body
        if options.get("packed"):
            content = gzip.compress(content)
        self.pages[path] = Page(content, **options)  # type: ignore[arg-type]

    def fail(self, path: str, status: int) -> None:
        """Let a path answer with an error."""
        self.pages[path] = Page(b"no", status=status, etag=False)

    def redirect(self, path: str, target: str) -> None:
        """Let a path lead elsewhere."""
        self.pages[path] = Page(status=302, headers={"Location": target}, etag=False)

    def feed(self, path: str, entries: dict[str, tuple[str, str]]) -> None:
        """Put an RSS feed there: title and text by id."""
        items = "".join(
            f"<item><guid>{key}</guid><title>{title}</title><link>{self.url}/{key}</link>"
            f"<description>&lt;p&gt;{text}&lt;/p&gt;</description></item>"
            for key, (title, text) in entries.items()
        )
        feed = f"<?xml version='1.0'?><rss version='2.0'><channel><title>News</title>{items}</channel></rss>"
        self.put(path, feed, media_type="application/rss+xml")

    def sitemap(self, path: str, pages: list[str]) -> None:
        """Put a sitemap of this site's pages there."""
        urls = "".join(f"<url><loc>{self.url}{page}</loc></url>" for page in pages)
        body = f"<urlset xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'>{urls}</urlset>"
        self.put(path, body, media_type="application/xml")

    def paths(self) -> list[str]:
        """Return the paths that were asked for."""
        return [path for path, _ in self.asked]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that hangs up in the middle is what is tested."""


@contextmanager
def site_on(host: str = "127.0.0.1") -> Iterator[Site]:
    """Serve a site until the block ends."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            site.asked.append((self.path, dict(self.headers)))
            with suppress(BrokenPipeError, ConnectionResetError):
                self._answer(site.pages.get(self.path) or Page(b"nothing here", status=404, etag=False))

        def _answer(self, page: Page) -> None:
            if page.wait is not None:
                page.wait.wait(60)
            etag = f'"{hashlib.sha256(page.body).hexdigest()[:16]}"'
            if page.etag and self.headers.get("If-None-Match") == etag:
                self.send_response(304)
                self.send_header("ETag", etag)
                self.end_headers()
                return
            self.send_response(page.status)
            self.send_header("Content-Type", page.media_type)
            for name, value in page.headers.items():
                self.send_header(name, value)
            if page.etag:
                self.send_header("ETag", etag)
            if page.packed:
                self.send_header("Content-Encoding", "gzip")
            if page.endless:
                self.send_header("Connection", "close")
            else:
                self.send_header("Content-Length", str(len(page.body)))
            self.end_headers()
            self.wfile.write(page.body)
            while page.endless:
                self.wfile.write(page.body)
            self.close_connection = page.endless

        def log_message(self, *_: object) -> None:
            pass

    server = _Server((host, 0), Handler)
    site.url = f"http://{host}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
