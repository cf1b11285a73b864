"""A Git repository over HTTP on loopback: dulwich's own server over a repository in memory or on disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from dulwich import porcelain
from dulwich.repo import Repo
from dulwich.server import DictBackend
from dulwich.web import make_wsgi_chain

_AUTHOR = b"Test <test@example.com>"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Remote:
    """The repository and its address."""

    url: str
    path: Path
    requests: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, str | bytes | None], branch: str = "master") -> None:
        """Write files (None removes one) and commit them."""
        with Repo(str(self.path)) as repo:
            for name, content in files.items():
                target = self.path / name
                if content is None:
                    porcelain.remove(repo, [str(target)])
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content.encode() if isinstance(content, str) else content)
                    porcelain.add(repo, [str(target)])
            porcelain.commit(repo, message=b"change", author=_AUTHOR, committer=_AUTHOR)
            if branch != "master":
                repo.refs[b"refs/heads/" + branch.encode()] = repo.head()


@contextmanager
def git_on(path: Path, token: str | None = None) -> Iterator[Remote]:
    """Serve a fresh repository in `path` until the block ends; with a token, only to those who bring it."""
    repo = Repo.init(str(path), mkdir=True)
    remote = Remote("", path)
    chain = make_wsgi_chain(DictBackend({"/team/notes.git": repo}))

    def guarded(environ, start_response):  # type: ignore[no-untyped-def]
        remote.requests.append(environ["PATH_INFO"])
        if token is not None and token not in environ.get("HTTP_AUTHORIZATION", ""):
            start_response("401 Unauthorized", [("Content-Type", "text/plain")])
            return [b"no"]
        return chain(environ, start_response)

    server = make_server("127.0.0.1", 0, guarded, server_class=_Server, handler_class=_Quiet)
    remote.url = f"http://127.0.0.1:{server.server_address[1]}/team/notes.git"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield remote
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        repo.close()
