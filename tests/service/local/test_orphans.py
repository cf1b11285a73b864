"""A supervisor killed with SIGKILL leaves nothing: what the kernel does not end, the next `down` or start does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.local import processes
from service.local.ending import end_stack
from service.local.owner import owned
from service.local.settings import ROOT
from service.local.state import recorded_stack
from tenants.errors import Conflict

SCRIPT = Path(__file__).parent / "standins" / "supervise.py"
DEAF = """
import runpy, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@contextlib.contextmanager
def supervisor(data_dir, *before):
    """A supervisor of two families, and the trees of both."""
    words = [sys.executable, *before, str(SCRIPT), str(data_dir)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env={"PYTHONPATH": str(ROOT)}) as process:
        trees = {}
        try:
            assert process.stdout.readline() == b"ready\n"
            for child in recorded_stack(data_dir).children:
                trees[child.name] = processes.session_tree(child.pid, child.identity)
            yield trees
        finally:
            process.kill()
    for tree in trees.values():
        processes.kill(tree)


@pytest.fixture
def killed(data_dir):
    """The trees of a supervisor that was killed."""
    with supervisor(data_dir) as trees:
        assert {name: len(tree) for name, tree in trees.items()} == {"mortal": 2, "survivor": 2}
        with pytest.raises(Conflict, match="Another process runs"), owned(data_dir):
            pass
        os.kill(recorded_stack(data_dir).supervisor_pid, signal.SIGKILL)
        yield trees


def test_the_kernel_ends_the_children_and_down_ends_the_rest(killed, data_dir):
    leader = {child.pid: child.identity for child in recorded_stack(data_dir).children if child.name == "mortal"}
    assert processes.wait_gone(leader, 10.0) == {}
    assert processes.alive(killed["mortal"]), "its offspring is not a child of the supervisor"
    assert processes.alive(killed["survivor"]) == killed["survivor"]
    assert end_stack(data_dir, lambda event: None) == "leftovers"
    assert processes.alive(killed["mortal"] | killed["survivor"]) == {}
    assert recorded_stack(data_dir) is None
    assert end_stack(data_dir, lambda event: None) == "nothing"


def test_the_next_start_ends_them_before_it_starts_anything(killed, data_dir):
    with owned(data_dir):
        assert processes.alive(killed["mortal"] | killed["survivor"]) == {}
        assert recorded_stack(data_dir) is None


def test_a_supervisor_that_does_not_answer_is_killed_with_everything(data_dir):
    with supervisor(data_dir, "-c", DEAF) as trees:
        assert end_stack(data_dir, lambda event: None, patience_s=0.5) == "killed"
        assert processes.alive(trees["mortal"] | trees["survivor"]) == {}


def test_a_test_session_that_holds_the_stores_is_not_ended_from_outside(data_dir):
    holder = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        who = processes.identity(holder.pid)
        record = f'{{"supervisor_pid": {holder.pid}, "supervisor_identity": "{who}", "since": 0, "of": "stores"}}'
        (data_dir / "run.json").write_text(record)
        with pytest.raises(Conflict, match="only the stores"):
            end_stack(data_dir, lambda event: None)
        assert holder.poll() is None
    finally:
        holder.kill()
        holder.wait()
