"""Which files an upload takes, and under which ids; then uploads to the real service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.transport import ApiProblem
from service.cli import upload
from service.cli.upload import items_of
from tenants.errors import InvalidRequest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good documents, an empty one, one of an unknown type, and hidden files."""
    made = tmp_path / "handbook"
    for name, content in {
        "boats.md": b"# Boats\n\nAll boats are red.\n",
        "sub/whales.txt": b"Whales are protected from May to August.",
        "empty.txt": b"",
        "noise.bin": bytes(range(256)),
        ".git/config": b"hidden",
        "sub/.draft.txt": b"hidden",
    }.items():
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return made


def test_a_folder_gives_its_files_but_not_the_hidden_ones(folder: Path) -> None:
    found = {item.external_id: item.path for item in items_of(folder, True)}
    assert sorted(str(name) for name in found) == ["boats.md", "empty.txt", "noise.bin", "sub/whales.txt"]
    assert found["sub/whales.txt"] == folder / "sub" / "whales.txt"


def test_a_file_has_no_external_id_of_its_own(folder: Path) -> None:
    assert [item.external_id for item in items_of(folder / "boats.md", False)] == [None]


@pytest.mark.parametrize(("name", "code"), [("", "is_a_folder"), ("nothing.md", "no_such_file")])
def test_what_cannot_be_uploaded(folder: Path, name: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        items_of(folder / name, False)
    assert caught.value.code == code


async def test_a_folder_is_uploaded_and_replaced_by_the_next_run(
    run: Callable[..., Any], read: Callable[..., Any], tenant: Any, folder: Path
) -> None:
    first = run("upload", str(folder), "--recursive", "--metadata", '{"year": 2026}', key=tenant.key, ok=False)
    assert "4 documents: 2 ready, 2 failed." in first.stdout
    assert "document_empty" in first.stdout
    assert "unsupported_type" in first.stdout

    (folder / "empty.txt").unlink()
    (folder / "noise.bin").unlink()
    (folder / "boats.md").write_text("# Boats\n\nAll boats are blue.\n")
    second = read("upload", str(folder), "-r", "--metadata", '{"year": 2026}', key=tenant.key)
    assert {item["external_id"]: item["state"] for item in second} == {
        "boats.md": "done",
        "sub/whales.txt": "unchanged",
    }
    boats = read("documents", "get", "boats.md", key=tenant.key)
    assert (boats["version"], boats["metadata"]) == (2, {"year": 2026})


async def test_two_files_with_one_external_id_are_refused_before_anything_is_sent(
    run: Callable[..., Any], read: Callable[..., Any], tenant: Any, folder: Path
) -> None:
    twin = folder.parent / "twin"
    twin.mkdir()
    (twin / "boats.md").write_text("Other boats.")
    ended = run("upload", str(folder), str(twin), "-r", key=tenant.key, ok=False)
    assert "external_id_twice" in ended.stderr
    assert read("documents", "list", key=tenant.key) == []


async def test_a_refused_key_ends_it_at_once(run: Callable[..., Any], folder: Path) -> None:
    ended = run("upload", str(folder), "-r", key="tsr_live_wrong", ok=False)
    assert "malformed_key, request " in ended.stderr
    assert ended.stdout == ""


async def test_what_is_not_taken_in_now_is_sent_again_when_the_service_says() -> None:
    refusals = [ApiProblem("intake_full", 429, "Not now.", retry_after_s=0.01) for _ in range(3)]

    async def send() -> str:
        if refusals:
            raise refusals.pop()
        return "taken"

    assert await upload._admitted(send) == "taken"
    refusals.append(ApiProblem("invalid_key", 401, "No."))
    with pytest.raises(ApiProblem, match="No"):
        await upload._admitted(send)
