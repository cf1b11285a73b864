"""`tessera up` to `tessera down`, as processes of their own."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import urllib.request

import psutil
import pytest

from service.broker import make_celery
from service.local import processes
from service.local.settings import CALM_THREADS
from service.local.state import recorded_stack, running_stack
from service.redis_access import RedisAddress

CHILDREN = ["postgres", "redis", "milvus", "api", "worker", "scheduler"]


def trees(state):
    """Every process of a stack."""
    members = {state.supervisor_pid: state.supervisor_identity}
    for child in state.children:
        members |= processes.session_tree(child.pid, child.identity)
    return members


def get(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


@pytest.fixture(scope="module")
def checkout(make_checkout, tmp_path_factory):
    """A checkout with its Postgres below a folder that only its owner may enter, stack started once."""
    closed = tmp_path_factory.mktemp("closed")
    closed.chmod(0o700)
    made = make_checkout(closed, postgres=True)
    yield made
    made.run("down")


@pytest.fixture
def up(checkout):
    """The running stack; started if a test before has ended it."""
    done = checkout.run("up")
    assert done.returncode == 0, done.stderr
    return running_stack(checkout.data_dir)


def test_up_shows_each_child_as_it_becomes_ready_and_returns(checkout):
    done = checkout.run("up")
    assert done.returncode == 0, done.stderr
    ready = [line.split()[1] for line in done.stdout.splitlines() if line.split()[0] in ("ready", "done")]
    assert sorted(ready) == sorted([*CHILDREN, "schema"])
    assert set(ready[:4]) == {*CHILDREN[:3], "schema"}
    assert ready.index("postgres") < ready.index("schema")
    assert "Ready at http://127.0.0.1:" in done.stdout
    state = running_stack(checkout.data_dir)
    assert state.ready
    assert [child.state for child in state.children] == ["healthy"] * 6


def test_a_second_up_says_so_and_changes_nothing(up, checkout):
    done = checkout.run("up")
    assert done.returncode == 0
    assert f"Already running at {up.url}" in done.stdout
    assert running_stack(checkout.data_dir).supervisor_pid == up.supervisor_pid


def test_the_supervisor_has_a_session_of_its_own(up):
    assert os.getsid(up.supervisor_pid) == up.supervisor_pid != os.getsid(0)


def test_env_prints_lines_for_a_shell(up, checkout):
    script = checkout.run("env").stdout + '\necho "$TESSERA_URL|$TESSERA_ADMIN_KEY"'
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True)
    assert done.stdout == f"{up.url}|{up.admin_key}\n"


def test_status_shows_every_child_and_the_memory_of_all(up, checkout):
    done = checkout.run("status")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.strip()}
    for child in up.children:
        name, state, pid, port, _, restarts, resident = lines[child.name]
        assert (name, state, pid, port) == (child.name, "healthy", str(child.pid), str(child.port or "-"))
        assert (restarts, int(resident) > 0) == ("0", True)
    shown = sum(int(words[-1]) for name, words in lines.items() if name in (*CHILDREN, "supervisor"))
    assert abs(int(lines["total"][-1]) - shown) <= len(CHILDREN) + 1


def test_doctor_finds_nothing_wrong(up, checkout):
    done = checkout.run("doctor")
    assert (done.returncode, "WRONG" in done.stdout) == (0, False), done.stdout
    assert "role tessera_app is bound by row-level security" in done.stdout
    assert "schema: version " in done.stdout


def test_doctor_says_what_is_wrong_and_how_to_mend_it(up, checkout):
    checkout.data_dir.chmod(0o755)
    done = checkout.run("doctor")
    checkout.data_dir.chmod(0o700)
    assert done.returncode == 1
    assert f"mend: chmod 700 {checkout.data_dir}" in done.stdout
    assert "1 of " in done.stdout


def test_children_get_what_they_need_and_nothing_else(up):
    api = get(f"{up.url}/environment")
    fixed = {"PATH", "LANG", "HF_HUB_OFFLINE", "PYTHONUNBUFFERED", "PYTHONPATH", "LC_CTYPE", *CALM_THREADS}
    assert {name for name in api if not name.startswith("TESSERA_")} <= fixed
    assert api["HF_HUB_OFFLINE"] == "1"
    assert "TESSERA_DATABASE_OWNER_URL" not in api
    assert "TESSERA_DATABASE_WORKER_URL" not in api
    (worker,) = (child for child in up.children if child.name == "worker")
    given = psutil.Process(worker.pid).environ()
    assert "tessera_worker:" in given["TESSERA_DATABASE_WORKER_URL"]
    assert not {"TESSERA_DATABASE_URL", "TESSERA_ADMIN_KEY", "TESSERA_DATABASE_OWNER_URL"} & given.keys()


def test_all_that_listens_listens_on_loopback(up):
    ears = [s for pid in trees(up) for s in psutil.Process(pid).net_connections() if s.status == psutil.CONN_LISTEN]
    assert {ear.laddr.ip.removeprefix("::ffff:") for ear in ears} == {"127.0.0.1"}


@pytest.mark.parametrize("name", ["worker", "scheduler", "api", "redis", "milvus", "postgres"])
async def test_a_killed_child_comes_back(up, checkout, eventually, name):
    def child():
        state = running_stack(checkout.data_dir)
        return next(child for child in state.children if child.name == name)

    before = child()
    family = processes.session_tree(before.pid, before.identity)
    os.kill(before.pid, signal.SIGKILL)
    await eventually(lambda: child().restarts == before.restarts + 1 and child().state == "healthy")
    assert child().port == before.port
    assert processes.alive(family) == {}


async def test_down_lets_the_worker_finish_and_leaves_nothing(up, checkout, tmp_path, eventually):
    celery = make_celery(RedisAddress("TESSERA_REDIS_URL", up.env["TESSERA_REDIS_URL"]))
    celery.send_task("standin.write", (str(tmp_path / "work"), 2.0))
    celery.close()
    await eventually((tmp_path / "work.begun").exists)
    members = trees(up)
    done = checkout.run("down")
    assert done.returncode == 0, done.stderr
    stopped = [line.split()[1] for line in done.stdout.splitlines() if line.split()[0] == "stopped"]
    assert stopped == CHILDREN[::-1]
    assert (tmp_path / "work").exists()
    assert processes.alive(members) == {}
    assert recorded_stack(checkout.data_dir) is None


def test_with_nothing_running_down_is_good_and_env_and_status_are_not(checkout):
    checkout.run("down")
    assert (checkout.run("down").returncode, checkout.run("down").stdout) == (0, "Nothing runs.\n")
    env = checkout.run("env")
    assert (env.returncode, env.stdout) == (1, "")
    assert "start one with `tessera up`" in env.stderr
    assert checkout.run("status").returncode == 1
    assert checkout.run("doctor").returncode == 0


def test_the_next_start_has_the_same_addresses_and_secrets(checkout, up):
    assert checkout.run("down").returncode == 0
    assert checkout.run("up").returncode == 0
    again = running_stack(checkout.data_dir)
    assert (again.url, again.admin_key, again.env) == (up.url, up.admin_key, up.env)


def test_everything_in_the_data_folder_is_closed(checkout, up):
    assert stat.S_IMODE(checkout.data_dir.stat().st_mode) == 0o700
    open_to_others = [path for path in checkout.data_dir.rglob("*") if stat.S_IMODE(path.lstat().st_mode) & 0o077]
    assert open_to_others == []


def test_a_start_that_fails_names_the_cause_and_leaves_nothing(checkout):
    checkout.run("down")
    checkout.env["TESSERA_STANDIN_FAILS"] = "1"
    done = checkout.run("up")
    del checkout.env["TESSERA_STANDIN_FAILS"]
    assert done.returncode == 1
    assert "api exited with status 1" in done.stderr
    assert "| the setting is wrong" in done.stderr
    assert str(checkout.data_dir / "logs" / "api.log") in done.stderr
    assert recorded_stack(checkout.data_dir) is None
    assert not [
        p for p in psutil.process_iter(["cmdline"]) if str(checkout.data_dir) in " ".join(p.info["cmdline"] or ())
    ]


def test_a_killed_supervisor_leaves_nothing_after_down(checkout, up):
    members = trees(up)
    os.kill(up.supervisor_pid, signal.SIGKILL)
    assert "was killed" in checkout.run("status").stderr
    doctor = checkout.run("doctor")
    assert doctor.returncode == 1
    assert f"the supervisor {up.supervisor_pid} was killed" in doctor.stdout
    assert "mend: run `tessera down`" in doctor.stdout
    done = checkout.run("down")
    assert (done.returncode, done.stdout) == (0, "The supervisor had been killed; what it left is ended.\n")
    assert processes.alive(members) == {}


def test_a_killed_supervisor_leaves_nothing_after_the_next_up(checkout, up):
    members = trees(up)
    os.kill(up.supervisor_pid, signal.SIGKILL)
    done = checkout.run("up")
    assert done.returncode == 0, done.stderr
    assert processes.alive(members) == {}
    assert running_stack(checkout.data_dir).url == up.url


@pytest.mark.parametrize("failed", [0, 1])
def test_the_demo_runs_when_the_stack_is_ready_and_its_status_counts(checkout, up, failed):
    checkout.env["STANDIN_DEMO"] = str(failed)
    done = checkout.run("up", "--demo")
    del checkout.env["STANDIN_DEMO"]
    assert done.returncode == failed, done.stderr
    shown = f"the demo at {up.url} with a key of {len(up.admin_key)} characters in {checkout.data_dir}"
    assert shown in done.stdout


def test_in_the_foreground_ctrl_c_drains_in_order(checkout):
    checkout.run("down")
    argv, env = checkout.command("up", "--foreground")
    words = {"env": env, "cwd": checkout.root, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(argv, **words) as process:
        lines = iter(process.stdout.readline, "")
        assert any("Ctrl-C drains and stops." in line for line in lines)
        members = trees(running_stack(checkout.data_dir))
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 0
    assert [line.split()[1] for line in rest.splitlines() if line.split()[0] == "stopped"] == CHILDREN[::-1]
    assert processes.alive(members) == {}
