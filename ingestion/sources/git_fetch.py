"""Git over HTTP: the protocol is dulwich's, every request goes through the guarded fetcher, the pack ends in a file.

Nothing is unpacked here: what a pack holds is hostile until `git_child` has read it in a process of its own.
"""

from __future__ import annotations

import asyncio
import base64
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from dulwich.client import AbstractHttpGitClient
from dulwich.errors import GitProtocolError, HangupException, NotGitRepository
from dulwich.object_store import ObjectStoreGraphWalker

from ingestion.sources.config import GitConfig
from ingestion.sources.fetch import Fetcher
from tenants.errors import SourceFailed

_HEAD = b"HEAD"
_MEDIA_TYPE = "application/x-git-"
_MAX_REFS_BYTES = 64 * 1024 * 1024


@dataclass
class _Answer:
    """What dulwich asks of a response."""

    content_type: str
    file: BinaryIO
    status: int = 200
    redirect_location: str = ""

    def close(self) -> None:
        self.file.close()


class GitRemote(AbstractHttpGitClient):
    """A repository over HTTP. Its methods block: they run in a thread, and the requests in the loop."""

    def __init__(self, config: GitConfig, fetcher: Fetcher, loop: asyncio.AbstractEventLoop, max_bytes: int) -> None:
        parts = urlsplit(config.url)
        super().__init__(f"{parts.scheme}://{parts.netloc}/", quiet=True)
        self._path = parts.path.strip("/")
        self._config, self._fetcher, self._loop, self._max_bytes = config, fetcher, loop, max_bytes

    def _http_request(
        self,
        url: str,
        headers: dict[str, str] | None = None,
        data: bytes | Iterator[bytes] | None = None,
        raise_for_status: bool = True,
    ) -> tuple[Any, Callable[[int], bytes]]:
        """Send a request of the protocol; redirects are refused, so a token reaches no other host.

        To an answer of another type dulwich would go on with the protocol of plain files, and unpack them here.
        """
        sent = {**(headers or {}), **self._authorization(url)}
        file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - dulwich closes the answer
        body = data if isinstance(data, bytes) or data is None else b"".join(data)
        try:
            media_type = self._wait(self._send(url, sent, body, file))
            if not media_type.startswith(_MEDIA_TYPE):
                raise SourceFailed(f"The answer is not Git's: {media_type[:100]!r}.", code="source_wrong_type")
        except BaseException:
            file.close()
            raise
        return _Answer(media_type, file), file.read

    async def _send(self, url: str, headers: Mapping[str, str], body: bytes | None, file: BinaryIO) -> str:
        if body is None:
            return await self._fetcher.get_here(url, headers, file, max_bytes=_MAX_REFS_BYTES)
        return await self._fetcher.post(url, body, headers, file, max_bytes=self._max_bytes)

    def _wait(self, work: Coroutine[Any, Any, str]) -> str:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _authorization(self, url: str) -> dict[str, str]:
        given = self._config.credentials
        if given is None or urlsplit(url).netloc != urlsplit(self._config.url).netloc:
            return {}
        pair = f"{given.username}:{given.token.get_secret_value()}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}

    def fetch_commit(self, known: str | None, pack: BinaryIO) -> str:
        """Write the pack of the branch's newest commit and return its id; write nothing when it is the known one.

        Raises:
            SourceFailed: there is no such repository or branch, or the answer is not Git's.
        """
        wanted: list[bytes] = []

        def choose(refs: Mapping[bytes, bytes], depth: int | None = None) -> list[bytes]:
            wanted.append(self._commit_of(refs))
            return [] if wanted[0].decode() == known else wanted

        walker = ObjectStoreGraphWalker([], lambda _: [], shallow=set())
        try:
            self.dumb = False
            super().fetch_pack(self._path, choose, walker, pack.write, depth=1)  # type: ignore[arg-type]  # pack.write takes more than bytes
        except NotGitRepository as error:
            raise SourceFailed("There is no Git repository at the address.", code="source_not_found") from error
        except (GitProtocolError, HangupException, ValueError, AssertionError, KeyError) as error:
            raise SourceFailed(f"The answer is not Git's: {str(error)[:200]}.", code="source_wrong_type") from error
        if not wanted:
            raise SourceFailed("The repository is empty.", code="source_not_found")
        return wanted[0].decode()

    def _commit_of(self, refs: Mapping[bytes, bytes]) -> bytes:
        branch = self._config.branch
        name = _HEAD if branch is None else b"refs/heads/" + branch.encode()
        if name not in refs:
            shown = "no branch" if branch is None else f"no branch {branch!r}"
            raise SourceFailed(f"The repository has {shown}.", code="source_not_found")
        return refs[name]
