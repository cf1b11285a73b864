"""The launcher as an ordinary user and as root: what survives the change of account."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.local.account import unprivileged_account
from service.local.child import LAUNCHER

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its account")
DOCKERS = (
    "cap_chown,cap_dac_override,cap_fowner,cap_fsetid,cap_kill,cap_setgid,cap_setuid,cap_setpcap,cap_net_bind_service"
)


def launch(*program, options=(), before=(), parent=None, **popen):
    words = [sys.executable, "-I", "-S", str(LAUNCHER), f"--parent={parent or os.getpid()}", "--death-signal=9"]
    return subprocess.run([*before, *words, *options, "--", *program], capture_output=True, text=True, **popen)


def test_the_program_gets_its_arguments_and_a_private_umask():
    done = launch("/bin/sh", "-c", 'umask; echo "$0" "$@"', "--flag", "a b")
    assert done.stdout == "0077\n--flag a b\n"


def test_signals_that_a_shell_ignores_work_again():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done = launch("/bin/sh", "-c", "kill -INT $$; echo survived")
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.returncode == -signal.SIGINT


def test_a_child_of_a_supervisor_that_is_gone_does_not_start():
    done = launch("/bin/echo", "started", parent=1)
    assert done.returncode != 0
    assert "is gone" in done.stderr
    assert "started" not in done.stdout


@pytest.fixture
def closed(tmp_path):
    """A folder that only root may enter, with a program and a file of the other account below it."""
    folder = tmp_path / "closed"
    (folder / "bin").mkdir(parents=True)
    shutil.copy("/bin/cat", folder / "bin" / "cat")
    shutil.copy("/usr/bin/test", folder / "bin" / "test")
    (folder / "file").write_text("inside\n")
    (folder / "file").chmod(0o644)
    folder.chmod(0o700)
    account = unprivileged_account()
    return folder, (f"--uid={account.uid}", f"--gid={account.gid}"), account


@only_root
def test_another_account_runs_a_program_and_reads_below_a_closed_folder(closed):
    folder, options, account = closed
    done = launch(str(folder / "bin" / "cat"), str(folder / "file"), "/proc/self/status", options=options)
    assert done.stdout.startswith("inside\n"), done.stderr
    assert f"Uid:\t{account.uid}\t{account.uid}\t{account.uid}" in done.stdout
    assert f"Groups:\t{account.gid} \n" in done.stdout
    assert "CapPrm:\t0000000000000004" in done.stdout, "one capability, no more"
    assert "NoNewPrivs:\t1" in done.stdout


@only_root
def test_access_sees_what_open_may_open(closed):
    """access(2) is how Postgres looks for its own files; without the secure bit it says no."""
    folder, options, _ = closed
    assert launch(str(folder / "bin" / "test"), "-r", str(folder / "file"), options=options).returncode == 0


@only_root
def test_another_account_may_not_write_below_a_closed_folder(closed):
    folder, options, _ = closed
    done = launch("/bin/sh", "-c", f"echo x >> {folder}/file", options=options)
    assert done.returncode != 0
    assert (folder / "file").read_text() == "inside\n"


@only_root
def test_the_capabilities_of_a_common_container_are_enough(closed):
    folder, options, account = closed
    limit = ("setpriv", "--bounding-set=-all,+" + DOCKERS.replace("cap_", "").replace(",", ",+"))
    done = launch(str(folder / "bin" / "cat"), str(folder / "file"), "/proc/self/status", options=options, before=limit)
    assert done.stdout.startswith("inside\n"), done.stderr
    assert f"Uid:\t{account.uid}" in done.stdout


@only_root
def test_where_it_is_not_allowed_the_message_says_what_to_do(closed):
    folder, options, _ = closed
    limit = ("setpriv", "--bounding-set=-all,+setuid,+setgid")
    done = launch(str(folder / "bin" / "cat"), str(folder / "file"), options=options, before=limit)
    assert done.returncode == 77
    assert "CAP_DAC_READ_SEARCH" in done.stderr
    assert "Start it as an ordinary user" in done.stderr


@only_root
def test_the_death_signal_survives_the_change_of_account(closed, tmp_path):
    _, options, _ = closed
    words = [sys.executable, "-I", "-S", str(LAUNCHER), "--death-signal=9", *options]
    sleep = ["--", "/bin/sleep", "600"]
    parent = f"""
import os, subprocess, time
quiet = subprocess.DEVNULL
child = subprocess.Popen([*{words!r}, f"--parent={{os.getpid()}}", *{sleep!r}], stdout=quiet, stderr=quiet)
while "sleep" not in open(f"/proc/{{child.pid}}/comm").read():
    time.sleep(0.01)
print(child.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True)
    child = Path("/proc") / done.stdout.strip()
    for _ in range(1000):
        if not child.exists() or ") Z" in (child / "stat").read_text():
            return
        signal.sigtimedwait((), 0.01)
    os.kill(int(child.name), signal.SIGKILL)
    pytest.fail("it outlived its parent")
