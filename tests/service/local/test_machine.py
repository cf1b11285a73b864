from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from service.local import machine
from service.local.machine import check_disk, check_folder, check_memory, check_ports, check_state, examine_machine
from service.local.ports import free_port
from service.local.settings import ROOT
from service.local.state import Installation


def test_this_machine_is_good(data_dir):
    findings = examine_machine(data_dir, free_port(), running=False)
    assert [finding for finding in findings if not finding.good] == []
    assert len({finding.subject for finding in findings}) == len(findings)


def test_a_folder_that_others_may_enter(tmp_path):
    tmp_path.chmod(0o750)
    found = check_folder(tmp_path)
    assert (found.good, found.mend) == (False, f"chmod 700 {tmp_path}")


def test_a_folder_that_will_be_made(tmp_path):
    assert check_folder(tmp_path / "new" / "data").good
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    found = check_folder(tmp_path / "file" / "data")
    assert not found.good
    assert "TESSERA_DATA_DIR" in found.mend


def test_secrets_that_others_may_read(data_dir):
    Installation.load(data_dir)
    assert check_state(data_dir).good
    (data_dir / "state.json").chmod(0o640)
    assert check_state(data_dir).mend == f"chmod 600 {data_dir}/state.json"


def test_secrets_that_are_damaged(data_dir):
    (data_dir / "state.json").write_text("{}}")
    (data_dir / "state.json").chmod(0o600)
    found = check_state(data_dir)
    assert not found.good
    assert "backup" in found.mend


def test_a_port_in_use_is_said_and_is_not_wrong(data_dir):
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
        server.listen()
        port = server.getsockname()[1]
        found = check_ports(data_dir, port)
    assert found.good
    assert f"{port} (api)" in found.detail


def test_too_little_space_or_memory(data_dir, monkeypatch):
    monkeypatch.setattr(machine, "LEAST_DISK", 2**60)
    monkeypatch.setattr(machine, "LEAST_MEMORY", 2**60)
    assert "GiB" in check_disk(data_dir).mend
    assert "GiB" in check_memory().mend


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to lose")
def test_root_without_its_capabilities():
    script = "from service.local.machine import check_account; print(check_account())"
    words = ["setpriv", "--bounding-set=-all,+setuid,+setgid", sys.executable, "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert "good=False" in done.stdout, done.stderr
    assert "Start it as an ordinary user" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take an account without a name")
def test_an_account_without_a_name():
    script = "import os; os.setuid(54321); print(check_account())"
    words = [sys.executable, "-c", f"from service.local.machine import check_account; {script}"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert "54321 has no name" in done.stdout, done.stderr
