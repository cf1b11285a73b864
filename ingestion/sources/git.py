"""The files of a folder of a Git repository. The pack is fetched into a file and read by a confined child process."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ingestion.sources.config import GitConfig
from ingestion.sources.entries import Entry, Known, Read, Unchanged, too_large
from ingestion.sources.fetch import Fetcher
from ingestion.sources.files import file_entry
from ingestion.sources.git_fetch import GitRemote
from ingestion.sources.settings import SourceSettings
from tenants.errors import SourceFailed

_ROOT = Path(__file__).parents[2]
_BATCH = 64
_CPU_S = 300
_WALL_S = 600.0
_MAX_LINE = 64 * 1024
_BLOCK = 1 << 18


class GitSource:
    """A connector (see `entries.Connector`)."""

    def __init__(
        self,
        config: GitConfig,
        fetcher: Fetcher,
        settings: SourceSettings,
        *,
        max_bytes: int,
        cursor: dict[str, Any],
    ) -> None:
        self._config, self._fetcher, self._settings, self._max_bytes = config, fetcher, settings, max_bytes
        # Without a name: whoever is killed leaves nothing on the disk.
        self._pack: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed by aclose
        self._child: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self.cursor = cursor
        self.complete = True

    async def batches(self) -> AsyncGenerator[list[Entry], None]:
        """Yield the files of the newest commit, unless it is that of the last run."""
        where = {"folder": self._config.folder, "include": self._config.include}
        same = all(self.cursor.get(name) == value for name, value in where.items())
        known = self.cursor.get("commit") if same else None
        loop = asyncio.get_running_loop()
        remote = GitRemote(self._config, self._fetcher, loop, self._settings.max_run_bytes)
        commit = await asyncio.to_thread(remote.fetch_commit, known, self._pack)
        if commit == known:
            raise Unchanged
        async for batch in self._files(commit):
            yield batch
        self.cursor = {"commit": commit, **where}

    async def _files(self, commit: str) -> AsyncIterator[list[Entry]]:
        await self._start(commit)
        async with self._turn:
            found = [json.loads(line) async for line in self._lines()]
        wrong = next((item["error"] for item in found if "error" in item), None)
        if wrong == "no_folder":
            raise SourceFailed(f"The repository has no folder {self._config.folder!r}.", code="source_not_found")
        if wrong is not None:
            most = self._settings.max_entries
            raise SourceFailed(f"The folder has more than {most:,} files.", code="source_too_many")
        for at in range(0, len(found), _BATCH):
            yield [file_entry(item["path"], item["blob"]) for item in found[at : at + _BATCH]]

    async def read(self, entry: Entry, known: Known | None, target: BinaryIO) -> Read | None:
        """Copy a blob."""
        assert entry.stamp is not None
        async with self._turn:
            await self._ask(entry.stamp.encode() + b"\n")
            size = int(await self._line())
            if size < 0:
                raise too_large(repr(entry.place), self._max_bytes)
            assert self._child is not None
            assert self._child.stdout is not None
            while size > 0:
                block = await self._in_time(self._child.stdout.read(min(size, _BLOCK)))
                if not block:
                    raise _broken()
                size -= len(block)
                await asyncio.to_thread(target.write, block)
        return Read(entry.place.rsplit("/", 1)[-1], "")

    async def aclose(self) -> None:
        """End the child and let the pack go."""
        if self._child is not None:
            with suppress(ProcessLookupError):
                self._child.kill()
            await self._child.wait()
        self._pack.close()

    async def _start(self, commit: str) -> None:
        self._pack.flush()
        request = {
            "pack": self._pack.fileno(),
            "commit": commit,
            "folder": self._config.folder,
            "include": self._config.include,
            "max_entries": self._settings.max_entries,
            "max_bytes": self._max_bytes,
            "memory_bytes": self._settings.git_memory_bytes,
            "cpu_s": _CPU_S,
        }
        pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        self._child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ingestion.sources.git_child"),
            stdin=pipe,
            stdout=pipe,
            stderr=nothing,
            env={"PYTHONPATH": str(_ROOT), "LANG": "C.UTF-8"},
            pass_fds=[self._pack.fileno()],
            start_new_session=True,
            limit=_MAX_LINE,
        )
        await self._ask(json.dumps(request).encode() + b"\n")

    async def _ask(self, line: bytes) -> None:
        assert self._child is not None
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(line)
            await self._child.stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise _broken() from error

    async def _lines(self) -> AsyncIterator[bytes]:
        while line := (await self._line()).strip():
            yield line

    async def _line(self) -> bytes:
        assert self._child is not None
        assert self._child.stdout is not None
        line: bytes = await self._in_time(self._child.stdout.readline())
        if not line.endswith(b"\n"):
            raise _broken()
        return line

    async def _in_time(self, read: Coroutine[Any, Any, bytes]) -> bytes:
        try:
            async with asyncio.timeout(_WALL_S):
                return await read
        except TimeoutError as error:
            raise SourceFailed("The repository takes too long to unpack.", code="source_too_large") from error
        except ValueError as error:  # a line beyond the limit
            raise _broken() from error


def _broken() -> SourceFailed:
    return SourceFailed(
        "The repository cannot be unpacked: it is damaged, or larger than the service takes.", code="source_damaged"
    )
