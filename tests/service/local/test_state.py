from __future__ import annotations

import os
import stat

import pytest

from service.local import processes
from service.local.account import private_file, private_folder
from service.local.state import STATE_FILE, Installation, StackState, recorded_stack, running_stack
from tenants.errors import Misconfigured


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_are_made_once_and_only_their_owner_may_read_them(data_dir):
    first = Installation.load(data_dir)
    assert mode(data_dir / STATE_FILE) == 0o600
    assert Installation.load(data_dir) == first


def test_each_secret_is_another_one_of_at_least_160_random_bits(data_dir):
    secrets = Installation.load(data_dir).secrets.model_dump()
    assert secrets["admin_key"].startswith("tsr_admin_")
    hexadecimal = [value.removeprefix("tsr_admin_") for value in secrets.values()]
    assert len(set(hexadecimal)) == len(hexadecimal)
    assert all(len(bytes.fromhex(value)) * 8 >= 160 for value in hexadecimal)


def test_secrets_do_not_show_in_a_representation(data_dir):
    installation = Installation.load(data_dir)
    assert not any(value in repr(installation) for value in installation.secrets.model_dump().values())


def test_a_damaged_file_is_an_error_and_is_kept(data_dir):
    (data_dir / STATE_FILE).write_text('{"version": 1, "secr')
    with pytest.raises(Misconfigured, match=STATE_FILE):
        Installation.load(data_dir)
    assert (data_dir / STATE_FILE).read_text() == '{"version": 1, "secr'


def test_ports_are_remembered(data_dir):
    Installation.load(data_dir).model_copy(update={"ports": {"api": 8321}}).save(data_dir)
    assert Installation.load(data_dir).ports == {"api": 8321}


def test_a_folder_that_was_open_is_closed(tmp_path):
    tmp_path.chmod(0o755)
    assert mode(private_folder(tmp_path)) == 0o700


def test_a_private_file_replaces_the_old_one_whole(tmp_path):
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    private_file(path, "new")
    assert (path.read_text(), mode(path)) == ("new", 0o600)
    assert os.listdir(tmp_path) == ["secret"]


def state(pid, who):
    return StackState(supervisor_pid=pid, supervisor_identity=who, since=0.0, url="http://127.0.0.1:1", ready=True)


def test_a_stack_runs_while_its_supervisor_does(data_dir):
    assert running_stack(data_dir) is None
    state(os.getpid(), processes.identity(os.getpid())).save(data_dir)
    assert running_stack(data_dir).url == "http://127.0.0.1:1"
    assert mode(data_dir / "run.json") == 0o600


def test_a_later_process_with_the_same_number_is_not_the_supervisor(data_dir):
    state(os.getpid(), "another-boot:1").save(data_dir)
    assert running_stack(data_dir) is None
    assert recorded_stack(data_dir).supervisor_pid == os.getpid()
