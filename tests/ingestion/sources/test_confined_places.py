"""Places that a source must not reach: files beside its folder, credentials of others, memory beyond its bound."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from dulwich.object_format import DEFAULT_OBJECT_FORMAT
from dulwich.objects import Blob, Commit, ShaFile, Tree
from dulwich.pack import write_pack_objects

from ingestion.sources.entries import Entry
from ingestion.sources.folder import FolderSource, allowed_folder, copy_file
from ingestion.sources.vault import Vault
from tenants.errors import Conflict, Misconfigured, SourceFailed, SourceUnavailable

TENANT = UUID(int=1)
SECRET = "s" * 32


def test_a_folder_lies_below_a_root_with_its_links_resolved(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    (root / "docs").mkdir(parents=True)
    other.mkdir()
    (root / "link").symlink_to(other)
    assert allowed_folder(str(root / "docs"), [str(root)], TENANT) == root / "docs"
    assert allowed_folder(str(root), [str(root)], TENANT) == root
    for path in (other, root / "link", root / ".." / "other", Path("/"), tmp_path / "rootless"):
        with pytest.raises(SourceFailed) as caught:
            allowed_folder(str(path), [str(root)], TENANT)
        assert caught.value.code == "source_address_refused", path
    with pytest.raises(SourceFailed):
        allowed_folder(str(root), [], TENANT)


def test_each_tenant_may_have_a_root_of_its_own(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / str(UUID(int=number))).mkdir()
    roots = [f"{tmp_path}/{{tenant}}"]
    assert allowed_folder(f"{tmp_path}/{TENANT}", roots, TENANT)
    with pytest.raises(SourceFailed):
        allowed_folder(f"{tmp_path}/{UUID(int=2)}", roots, TENANT)


def test_a_file_that_became_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a.txt").write_text("mine")
    copy_file(folder, "inner/a.txt", (copied := io.BytesIO()), 100)
    assert copied.getvalue() == b"mine"
    (folder / "b.txt").symlink_to(tmp_path / "secret")
    (folder / "out").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.txt")
    for path in ("b.txt", "out/secret", "pipe.txt", "inner", "../secret"):
        with pytest.raises(SourceFailed):
            copy_file(folder, path, io.BytesIO(), 100)
    with pytest.raises(SourceFailed) as caught:
        copy_file(folder, "inner/a.txt", io.BytesIO(), 3)
    assert caught.value.code == "source_too_large"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOENT, "source_not_found"),
        (errno.ENOTDIR, "source_not_found"),
        (errno.EACCES, "source_forbidden"),
        (errno.EIO, "source_error"),
        (errno.ESTALE, "source_error"),
        (errno.EMFILE, "source_error"),
    ],
)
def test_a_file_that_cannot_be_read_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    """What is not found is deleted the second time."""
    (tmp_path / "a.txt").write_text("text")
    open_really = os.open

    def fails(path: str | Path, flags: int, **at: int) -> int:
        if path == "a.txt":
            raise OSError(number, os.strerror(number))
        return open_really(path, flags, **at)

    monkeypatch.setattr(os, "open", fails)
    with pytest.raises(SourceFailed) as caught:
        copy_file(tmp_path, "a.txt", io.BytesIO(), 100)
    assert caught.value.code == code
    assert caught.value.retryable == (code == "source_error")


def test_a_full_disk_of_the_worker_is_not_the_file_s_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(SourceUnavailable) as caught:
        copy_file(tmp_path, "a.txt", full, 100)
    assert caught.value.code == "source_error"


async def test_a_folder_that_may_be_listed_and_not_entered_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("text")

    stat_really = os.stat

    def fails(path: str | Path, **named: Any) -> os.stat_result:
        if path == "a.txt":
            raise PermissionError(errno.EACCES, "Permission denied")
        return stat_really(path, **named)

    monkeypatch.setattr(os, "stat", fails)
    with pytest.raises(SourceUnavailable) as caught:
        await anext(FolderSource(tmp_path, [], 100).batches())
    assert caught.value.code == "source_error"


async def listed(source: FolderSource) -> list[Entry]:
    return [entry async for batch in source.batches() for entry in batch]


async def test_a_folder_above_that_became_a_link_leads_nowhere(tmp_path: Path) -> None:
    """The place that was allowed is read, or nothing: whoever may write below the root cannot lead the way out."""
    for place, text in (("root/mine/docs", "mine"), ("other/docs", "secret")):
        (tmp_path / place / "inner").mkdir(parents=True)
        (tmp_path / place / "inner" / "a.txt").write_text(text)
    root = tmp_path / "root"
    source = FolderSource(allowed_folder(f"{root}/mine/docs", [str(root)], TENANT), [], 100)
    [entry] = await listed(source)
    await source.read(entry, None, (copied := io.BytesIO()))
    assert (entry.place, copied.getvalue()) == ("inner/a.txt", b"mine")
    (root / "mine").rename(root / "away")
    (root / "mine").symlink_to(tmp_path / "other")
    with pytest.raises(SourceFailed):
        await source.read(entry, None, io.BytesIO())
    with pytest.raises(SourceFailed):
        await listed(source)


async def test_folders_without_end_are_refused(tmp_path: Path) -> None:
    here = tmp_path
    for _ in range(120):
        here = here / "x"
        here.mkdir()
    with pytest.raises(SourceFailed) as caught:
        await listed(FolderSource(tmp_path, [], 100))
    assert caught.value.code == "source_too_many"


def test_what_is_sealed_opens_for_its_source_alone() -> None:
    vault, source = Vault(SECRET), uuid4()
    sealed = vault.seal(TENANT, source, {"token": "hush"})
    assert b"hush" not in sealed
    assert vault.open(TENANT, source, sealed) == {"token": "hush"}
    assert vault.seal(TENANT, source, {"token": "hush"}) != sealed
    for wrong in ((uuid4(), source, sealed), (TENANT, uuid4(), sealed), (TENANT, source, sealed[:-1] + b"x")):
        with pytest.raises(SourceFailed):
            vault.open(*wrong)
    with pytest.raises(SourceFailed):
        Vault("t" * 32).open(TENANT, source, sealed)


def test_a_vault_without_a_secret_keeps_nothing() -> None:
    with pytest.raises(Conflict):
        Vault("").seal(TENANT, TENANT, {"token": "hush"})
    with pytest.raises(Misconfigured):
        Vault("short")


def child(pack: Path, commit: str, **values: object) -> subprocess.CompletedProcess[bytes]:
    """Run the process that unpacks a repository, asking for nothing after the list."""
    with pack.open("rb") as file:
        request = {
            "pack": file.fileno(),
            "commit": commit,
            "folder": "",
            "include": [],
            "max_entries": 10,
            "max_bytes": 1000,
            "memory_bytes": 1 << 30,
            "cpu_s": 20,
        }
        return subprocess.run(
            [sys.executable, "-m", "ingestion.sources.git_child"],
            input=json.dumps(request | values).encode() + b"\n",
            pass_fds=[file.fileno()],
            capture_output=True,
            timeout=60,
            check=False,
        )


def git(path: Path, *words: str) -> str:
    """Run git in a repository."""
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
    return subprocess.run(["git", "-C", str(path), *who, *words], check=True, capture_output=True, text=True).stdout


def packed(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> tuple[Path, str]:
    """Return the pack of a repository with these files, and its commit."""
    path.mkdir()
    git(path, "init", "-q")
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    for name, target in (links or {}).items():
        (path / name).symlink_to(target)
    git(path, "add", ".")
    git(path, "commit", "-qm", "x")
    git(path, "repack", "-adq")
    [pack] = (path / ".git" / "objects" / "pack").glob("*.pack")
    return pack, git(path, "rev-parse", "HEAD").strip()


def test_links_of_a_repository_are_not_files(tmp_path: Path) -> None:
    files = {"a.md": b"text", "c.md": b"text", "deep/er/b.txt": b"text"}
    pack, commit = packed(tmp_path / "repo", files, {"link.md": "/etc/passwd"})
    lines = child(pack, commit).stdout.splitlines()
    assert [json.loads(line)["path"] for line in lines if line] == ["a.md", "c.md", "deep/er/b.txt"]


def test_a_repository_of_too_many_files_is_refused(tmp_path: Path) -> None:
    pack, commit = packed(tmp_path / "repo", {f"{n:02}.md": b"text %d" % n for n in range(11)})
    lines = child(pack, commit).stdout.splitlines()
    assert json.loads(lines[10]) == {"error": "too_many"}


def test_a_path_that_no_system_takes_ends_the_child(tmp_path: Path) -> None:
    """Long names of folders would make a listing of any size out of a small pack."""
    blob = Blob.from_string(b"text")
    inner = Tree()
    inner.add(b"a.md", 0o100644, blob.id)
    objects: list[ShaFile] = [blob, inner]
    for _ in range(20):
        outer = Tree()
        outer.add(b"n" * 255, 0o040000, inner.id)
        objects.append(inner := outer)
    commit = Commit()
    commit.tree, commit.author, commit.committer, commit.message = inner.id, b"A <a>", b"A <a>", b"x"
    commit.author_time = commit.commit_time = commit.author_timezone = commit.commit_timezone = 0
    with (tmp_path / "x.pack").open("wb") as file:
        write_pack_objects(file.write, [(one, None) for one in [*objects, commit]], DEFAULT_OBJECT_FORMAT)
    ended = child(tmp_path / "x.pack", commit.id.decode())
    assert ended.returncode != 0
    assert b"a.md" not in ended.stdout


def test_a_pack_that_swells_kills_the_child_alone(tmp_path: Path) -> None:
    pack, commit = packed(tmp_path / "repo", {"bomb.md": bytes(150_000_000), "a.md": b"x"})
    assert pack.stat().st_size < 5_000_000
    ended = child(pack, commit, memory_bytes=200_000_000)
    assert ended.returncode != 0


def test_what_is_no_pack_ends_the_child(tmp_path: Path) -> None:
    wrong = tmp_path / "x.pack"
    wrong.write_bytes(b"PACK" + bytes(100))
    assert child(wrong, "0" * 40).returncode != 0
