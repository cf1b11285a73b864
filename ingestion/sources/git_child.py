"""Unpacks a Git repository in a process that is thrown away: `python -m ingestion.sources.git_child`.

It gets one line of JSON (see `GitSource`), confines itself, and answers with one line `{path, blob}` for each wanted
file of the folder, then an empty line; or with `{error}`. From then on each line with the id of a blob is answered with
its length in a line and its bytes; with -1 for one that is larger than `max_bytes`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

from dulwich.object_format import DEFAULT_OBJECT_FORMAT
from dulwich.objects import Blob, Commit, RawObjectID, ShaFile, Tag, Tree
from dulwich.pack import MemoryPackIndex, Pack, PackData

from ingestion.parse.confine import (
    die_with_parent,
    forbid_calls,
    keep_to_itself,
    leave_network,
    limit_cpu,
    limit_resources,
)
from ingestion.sources.files import is_wanted

_MAX_DEPTH = 64
_MAX_PATH = 4096
"""Bytes; no system takes a longer one, and a few long names of folders would make a listing of any size."""
_FILE, _LINKS_AND_MODULES = 0o100000, 0o170000
_MAX_TAGS = 10


class Repository:
    """The objects of one pack, which is an open file."""

    def __init__(self, pack: int) -> None:
        data = PackData.from_file(os.fdopen(pack, "rb"), DEFAULT_OBJECT_FORMAT)
        entries: list[tuple[RawObjectID, int, int | None]] = list(data.sorted_entries())
        index = MemoryPackIndex(entries, DEFAULT_OBJECT_FORMAT, data.get_stored_checksum())
        self._pack = Pack.from_objects(data, index)

    def object(self, name: bytes) -> ShaFile:
        """Return an object by its id in hexadecimal."""
        kind, content = self._pack.get_raw(name)  # type: ignore[arg-type]  # ids are NewTypes of bytes
        return ShaFile.from_raw_string(kind, content)

    def tree_of(self, commit: bytes) -> Tree:
        """Return the tree of a commit, or of a tag on one."""
        found = self.object(commit)
        for _ in range(_MAX_TAGS):
            if isinstance(found, Tag):
                found = self.object(found.object[1])
        if isinstance(found, Commit):
            found = self.object(found.tree)
        if not isinstance(found, Tree):
            raise ValueError("the commit has no tree")
        return found

    def files(self, tree: Tree, prefix: bytes = b"", depth: int = 0) -> Iterator[tuple[bytes, bytes]]:
        """Yield path and blob of every plain file; links and submodules are left out."""
        if depth > _MAX_DEPTH:
            raise ValueError("the folders are nested too deep")
        for name, mode, sha in tree.iteritems():
            path = prefix + name
            if len(path) > _MAX_PATH:
                raise ValueError("a path is too long")
            if mode & _LINKS_AND_MODULES == _FILE:
                yield path, sha
            elif mode & _LINKS_AND_MODULES == 0o040000:
                inner = self.object(sha)
                assert isinstance(inner, Tree)
                yield from self.files(inner, path + b"/", depth + 1)

    def folder(self, tree: Tree, path: str) -> Tree:
        """Return a folder below a tree; raise `KeyError` when there is none."""
        for part in path.encode().split(b"/") if path else ():
            mode, sha = tree[part]
            inner = self.object(sha)
            if mode & _LINKS_AND_MODULES != 0o040000 or not isinstance(inner, Tree):
                raise KeyError(part)
            tree = inner
        return tree


def serve(request: dict[str, Any], asked: BinaryIO, answers: BinaryIO) -> None:
    """List the files, then hand out blobs until nobody asks any more."""
    repository = Repository(request["pack"])
    for line in _listing(repository, request):
        answers.write(json.dumps(line).encode() + b"\n")
    answers.write(b"\n")
    answers.flush()
    for name in asked:
        found = repository.object(name.strip())
        content = found.data if isinstance(found, Blob) else b""
        if len(content) > request["max_bytes"]:
            answers.write(b"-1\n")
        else:
            answers.write(f"{len(content)}\n".encode() + content)
        answers.flush()


def _listing(repository: Repository, request: dict[str, Any]) -> Iterator[dict[str, str]]:
    try:
        folder = repository.folder(repository.tree_of(request["commit"].encode()), request["folder"])
    except KeyError:
        yield {"error": "no_folder"}
        return
    listed = 0
    for raw, blob in repository.files(folder):
        path = raw.decode("utf-8", "surrogateescape")
        if is_wanted(path, request["include"]):
            listed += 1
            if listed > request["max_entries"]:
                yield {"error": "too_many"}
                return
            yield {"path": path, "blob": blob.decode()}


def main() -> None:
    """Confine this process, then serve."""
    request = json.loads(sys.stdin.buffer.readline())
    leave_network()
    die_with_parent()
    keep_to_itself()
    limit_resources(request["memory_bytes"])
    limit_cpu(request["cpu_s"])
    forbid_calls()
    serve(request, sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
