"""Where a command finds address and key, and to whom a key is never sent."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from service.cli.connection import Access, admin_address, tenant_client
from service.cli.demo_keys import FILE, DemoKey, DemoKeys, demo_keys
from service.local import processes
from service.local.account import private_folder
from service.local.state import StackState
from tenants.errors import Misconfigured, TesseraError, Unauthenticated

LOCAL, ELSEWHERE = "http://127.0.0.1:4711", "https://tessera.example"


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of which this process says that it runs a stack."""
    for name in ("URL", "KEY", "ADMIN_KEY"):
        monkeypatch.delenv(f"TESSERA_{name}", raising=False)
    folder = private_folder(tmp_path / "data")
    monkeypatch.setenv("TESSERA_DATA_DIR", str(folder))
    pid = os.getpid()
    stack = StackState(
        supervisor_pid=pid,
        supervisor_identity=processes.identity(pid),
        since=time.time(),
        ready=True,
        url=LOCAL,
        admin_key="tsr_admin_local",
    )
    stack.save(folder)
    kept = {"acme": DemoKey(tenant_id="1", key_id="2", key="tsr_live_kept")}
    DemoKeys(url="http://127.0.0.1:4000", tenants=kept).save(folder)
    return folder


def test_the_local_stack_is_the_default(data_dir: Path) -> None:
    assert admin_address(None, None) == (LOCAL, "tsr_admin_local")


def test_options_come_before_the_environment(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("TESSERA_ADMIN_KEY", "tsr_admin_environment")
    assert admin_address(None, None) == ("http://127.0.0.1:1", "tsr_admin_environment")
    assert admin_address(ELSEWHERE + "/", "tsr_admin_option") == (ELSEWHERE, "tsr_admin_option")


def test_the_local_admin_key_is_sent_nowhere_else(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unauthenticated):
        admin_address(ELSEWHERE, None)
    monkeypatch.setenv("TESSERA_URL", ELSEWHERE)
    with pytest.raises(Unauthenticated):
        admin_address(None, None)


def test_a_kept_key_is_sent_nowhere_else(data_dir: Path) -> None:
    assert tenant_client(Access(None, None, "acme")).url == LOCAL
    with pytest.raises(Unauthenticated, match="belongs to"):
        tenant_client(Access(ELSEWHERE, None, "acme"))
    with pytest.raises(Unauthenticated, match="no key of 'other'"):
        tenant_client(Access(None, None, "other"))


def test_without_a_key_it_says_where_one_may_be_found(data_dir: Path) -> None:
    with pytest.raises(Unauthenticated, match="--tenant acme"):
        tenant_client(Access(None, None, None))


def test_without_a_service_it_says_how_to_start_one(data_dir: Path) -> None:
    (data_dir / "run.json").unlink()
    with pytest.raises(Misconfigured, match="tessera up"):
        tenant_client(Access(None, "tsr_live_x", None))


def test_the_keys_are_for_their_owner_alone(data_dir: Path) -> None:
    assert (data_dir / FILE).stat().st_mode & 0o777 == 0o600
    (data_dir / FILE).write_text("damaged")
    with pytest.raises(TesseraError, match=r"demo-keys\.json"):
        demo_keys(data_dir)
    (data_dir / FILE).unlink()
    assert demo_keys(data_dir) is None
