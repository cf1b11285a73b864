from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from service.local import processes

SLEEPER = "import time; time.sleep(600)"
PARENT = f"""
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", {SLEEPER!r}]).pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def family():
    """A session leader with one child: process, its identity, number of the child."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, start_new_session=True) as leader:
        child = int(leader.stdout.readline())
        yield leader, processes.identity(leader.pid), child
        processes.kill(processes.session_tree(leader.pid, "") | processes.alive({child: processes.identity(child)}))
        leader.kill()


def test_a_tree_is_the_leader_and_its_descendants(family):
    leader, who, child = family
    assert set(processes.session_tree(leader.pid, who)) == {leader.pid, child}


def test_what_a_dead_leader_left_is_found_by_its_session(family):
    leader, who, child = family
    leader.kill()
    leader.wait()
    assert set(processes.session_tree(leader.pid, who)) == {child}


def test_a_zombie_is_not_alive(family):
    leader, who, _ = family
    leader.kill()
    os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)
    assert not processes.is_alive(leader.pid, who)


def test_another_process_with_the_recorded_number_is_left_alone(family):
    leader, who, _ = family
    boot, _, started = who.partition(":")
    assert processes.session_tree(leader.pid, f"{boot}:{int(started) - 1}") == {}


def test_a_session_of_an_earlier_boot_is_left_alone(family):
    leader, who, _ = family
    leader.kill()
    leader.wait()
    assert processes.session_tree(leader.pid, f"another-boot:{who.partition(':')[2]}") == {}


def test_kill_ends_all_and_says_what_is_left(family):
    leader, who, child = family
    assert processes.kill(processes.session_tree(leader.pid, who)) == {}
    assert not processes.identity(child)


def test_a_signal_to_a_process_that_has_ended_is_no_error():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    processes.send([ended.pid], signal.SIGTERM)


def test_resident_memory_counts_the_whole_tree(family):
    leader, _, _ = family
    alone = processes.resident_bytes(leader.pid, descendants=False)
    assert processes.resident_bytes(leader.pid) > alone > 0
