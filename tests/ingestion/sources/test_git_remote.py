"""What a Git server may answer: the protocol that ends in a pack, and nothing that is unpacked in the worker."""

from __future__ import annotations

import asyncio
import hashlib
import io
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ingestion.sources.config import GitConfig
from ingestion.sources.fetch import Fetcher
from ingestion.sources.git_fetch import GitRemote
from ingestion.sources.settings import SourceSettings
from tenants.errors import SourceFailed
from tests.ingestion.sources.git_server import git_on

if TYPE_CHECKING:
    from tests.ingestion.sources.site import Site


async def fetched(url: str) -> bytes:
    """Return the pack of a repository."""
    fetcher = Fetcher(SourceSettings(allow_networks="127.0.0.1:*"))
    pack = io.BytesIO()
    try:
        remote = GitRemote(GitConfig(url=url), fetcher, asyncio.get_running_loop(), 1_000_000)
        await asyncio.to_thread(remote.fetch_commit, None, pack)
    finally:
        await fetcher.aclose()
    return pack.getvalue()


async def test_a_server_of_git_answers_with_a_pack(tmp_path: Path) -> None:
    with git_on(tmp_path / "repo") as remote:
        remote.commit({"a.md": "Auks"})
        assert (await fetched(remote.url)).startswith(b"PACK")


@pytest.mark.parametrize("media_type", ["text/plain", "", "application/octet-stream"])
async def test_objects_as_plain_files_are_not_asked_for(site: Site, media_type: str) -> None:
    """The protocol of plain files has the client unpack what the server sends, without a bound."""
    tree = b"tree 0\0"
    commit = f"tree {hashlib.sha1(tree).hexdigest()}\nauthor A <a> 0 +0000\ncommitter A <a> 0 +0000\n\nx".encode()
    loose = b"commit %d\0%s" % (len(commit), commit)
    for content in (tree, loose):
        name = hashlib.sha1(content).hexdigest()
        site.put(f"/r.git/objects/{name[:2]}/{name[2:]}", zlib.compress(content), media_type="application/x-git-loose")
    refs = f"{name}\trefs/heads/master\n{name}\tHEAD\n"
    site.put("/r.git/info/refs?service=git-upload-pack", refs, media_type=media_type)
    with pytest.raises(SourceFailed) as caught:
        await fetched(f"{site.url}/r.git")
    assert caught.value.code == "source_wrong_type"
    assert site.paths() == ["/r.git/info/refs?service=git-upload-pack"]
