"""`tessera demo` from nothing, again, and with its keys lost."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.cli.demo import EXAMPLES
from service.cli.demo_hints import commands
from service.cli.demo_keys import FILE
from service.cli.demo_manifest import load_manifests
from tenants.errors import Misconfigured

COMPANIES = {"calvenor": ("31 days", "27 days"), "velmisjoch": ("27 days", "31 days")}


@pytest.fixture
def kept(stack: Any) -> Path:
    """Where the demo keeps its keys."""
    return Path(stack.env["TESSERA_DATA_DIR"]) / FILE


def test_the_demo_from_nothing_and_again(run: Callable[..., Any], read: Callable[..., Any], kept: Path) -> None:
    first = run("demo").stdout
    own, foreign = re.split(r"Each asks what only.*\n", first)
    for slug, (right, wrong) in COMPANIES.items():
        answered = re.search(rf"^{slug} +How many days.*?(?=^\S|\Z)", own, re.MULTILINE | re.DOTALL)
        assert answered is not None
        assert right in answered[0]
        assert wrong not in answered[0]
        assert "[1] Annual leave" in answered[0]
        assert re.search(rf"^{slug} +\S.*\n +This is not in your documents\.$", foreign, re.MULTILINE)
        assert len(read("documents", "list", "--tenant", slug)) == 12
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    keys = [tenant["key"] for tenant in json.loads(kept.read_text())["tenants"].values()]
    assert all(key in first for key in keys)

    again = run("demo").stdout
    assert again.count("12 documents, there already") == 2
    assert all(key in again for key in keys)


def test_lost_keys_are_replaced_for_ever(run: Callable[..., Any], read: Callable[..., Any], kept: Path) -> None:
    run("demo")
    for _ in range(2):
        kept.unlink()
        run("demo")
    states = [key["revoked_at"] is None for key in read("key", "list", "calvenor")]
    assert states.count(True) == 2


def test_a_key_that_somebody_else_made_is_not_revoked(
    run: Callable[..., Any], read: Callable[..., Any], kept: Path
) -> None:
    run("demo")
    for key in read("key", "list", "velmisjoch"):
        run("key", "revoke", "velmisjoch", key["id"])
    others = [read("key", "create", "velmisjoch", "--name", name)["id"] for name in ("web", "app")]
    assert "too_many_keys" in run("demo", ok=False).stderr
    for key_id in others:
        run("key", "revoke", "velmisjoch", key_id)
    run("demo")


def test_a_wrong_answer_fails_the_demo(run: Callable[..., Any], tmp_path: Path) -> None:
    for folder in EXAMPLES.glob("*/manifest.json"):
        (tmp_path / folder.parent.name).symlink_to(folder.parent)
    broken = tmp_path / "calvenor"
    broken.unlink()
    broken.mkdir()
    for path in (EXAMPLES / "calvenor").iterdir():
        (broken / path.name).symlink_to(path)
    manifest = json.loads((broken / "manifest.json").read_text())
    manifest["questions"][0]["answer_contains"] = ["99 days"]
    (broken / "manifest.json").unlink()
    (broken / "manifest.json").write_text(json.dumps(manifest))
    ended = run("demo", "--examples", str(tmp_path), ok=False)
    assert "The answer to calvenor does not say '99 days'. (demo_failed)" in " ".join(ended.stderr.split())


def test_a_folder_without_companies_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="holds no examples"):
        load_manifests(tmp_path)
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "manifest.json").write_text('{"slug": "acme"}')
    with pytest.raises(Misconfigured, match=r"manifest\.json"):
        load_manifests(tmp_path)


def test_commands_to_copy_hold_address_and_key() -> None:
    shown = "\n".join(commands("http://127.0.0.1:1", "tsr_live_x", "How long?"))
    assert "export TESSERA_URL=http://127.0.0.1:1" in shown
    assert "export TESSERA_KEY=tsr_live_x" in shown
    assert '{"message": "How long?"}' in shown
