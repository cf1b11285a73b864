from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys

import psutil
import pytest

from service.local import keeper, processes
from service.local.child import StartFailed
from service.local.health import FileProbe, is_ready
from service.local.spec import StepSpec


def journal_of(data_dir):
    path = data_dir / "journal"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def living(child):
    return processes.session_tree(child.pid, child.identity)


async def test_stages_start_in_order_and_drain_in_the_opposite_order(standin, supervise, data_dir):
    words = ("--journal", str(data_dir / "journal"))
    supervisor = supervise(
        (standin("first", *words, "--slow", "0.3"), standin("second", *words)),
        (standin("third", *words),),
    )
    await supervisor.start()
    assert {child.state for child in supervisor.children()} == {"healthy"}
    assert journal_of(data_dir) == ["start second", "start first", "start third"]
    await supervisor.stop()
    assert journal_of(data_dir)[3:] == ["stop third", "stop second", "stop first"]
    assert [event.name for event in supervisor.events if event.kind == "stopped"] == ["third", "second", "first"]


async def test_the_next_stage_waits_for_a_step(standin, supervise, data_dir):
    write = f"import sys; open({str(data_dir / 'made')!r}, 'w').write(sys.stdin.read())"
    step = StepSpec("step", (sys.executable, "-c", write), data_dir / "logs" / "step.log", stdin=b"order")
    supervisor = supervise((step,), (standin("after"),))
    await supervisor.start()
    assert (data_dir / "made").read_text() == "order"
    assert [event.name for event in supervisor.events] == ["step", "after"]


async def test_members_of_a_chain_start_in_turn_beside_the_rest_of_their_stage(standin, supervise, data_dir):
    words = ("--journal", str(data_dir / "journal"))
    chain = (standin("first", *words, "--slow", "0.4"), standin("second", *words))
    supervisor = supervise((chain, standin("beside", *words)))
    await supervisor.start()
    assert journal_of(data_dir) == ["start beside", "start first", "start second"]


async def test_a_failing_step_fails_the_start_with_the_end_of_its_log(supervise, data_dir):
    step = StepSpec("step", (sys.executable, "-c", "raise SystemExit('no such role')"), data_dir / "logs" / "step.log")
    with pytest.raises(StartFailed, match="step exited with status 1") as failure:
        await supervise((step,)).start()
    assert failure.value.tail == ["no such role"]


async def test_a_step_that_hangs_is_ended(supervise, data_dir):
    argv = (sys.executable, "-c", "import time; time.sleep(600)")
    with pytest.raises(StartFailed, match="longer than"):
        await supervise((StepSpec("step", argv, data_dir / "logs" / "step.log", timeout_s=0.3),)).start()


async def test_what_answers_on_a_childs_port_is_not_taken_for_the_child(standin, supervise):
    other = standin("other")
    await supervise((other,)).start()
    idle = (sys.executable, "-c", "import time; time.sleep(600)")
    child = dataclasses.replace(standin("child"), argv=idle, port=other.port, probe=other.probe, start_timeout_s=1.5)
    with pytest.raises(StartFailed, match="child was not healthy"):
        await supervise((child,)).start()


async def test_a_child_that_dies_fails_the_start_and_leaves_nothing(standin, supervise):
    supervisor = supervise((standin("good"),), (standin("bad", "--die"), standin("slow", "--slow", "60")))
    with pytest.raises(StartFailed, match="bad exited with status 3") as failure:
        await supervisor.start()
    assert failure.value.tail == ["the last word of bad"]
    assert failure.value.log.name == "bad.log"
    children = supervisor.children()
    await supervisor.stop()
    assert [living(child) for child in children] == [{}, {}, {}]


async def test_a_program_that_is_missing_is_named(standin, supervise):
    with pytest.raises(StartFailed) as failure:
        await supervise((standin("absent", argv=("/no/such/program",)),)).start()
    assert "cannot start /no/such/program" in failure.value.tail[-1]


async def test_a_child_that_never_becomes_healthy_fails_the_start(standin, supervise):
    with pytest.raises(StartFailed, match="was not healthy within"):
        await supervise((standin("slow", "--slow", "60", start_timeout_s=0.5),)).start()


async def test_a_child_that_dies_is_started_again_with_what_it_left_ended(standin, supervise, eventually):
    supervisor = supervise((standin("server", "--offspring"),))
    await supervisor.start()
    (first,) = supervisor.children()
    family = living(first)
    assert len(family) == 2
    os.kill(first.pid, signal.SIGKILL)
    await eventually(lambda: supervisor.children()[0].restarts == 1 and supervisor.children()[0].state == "healthy")
    (again,) = supervisor.children()
    assert again.pid != first.pid
    assert (again.port, again.cause) == (first.port, "ended by SIGKILL")
    assert processes.alive(family) == {}


async def test_a_child_that_keeps_dying_is_given_up_with_its_cause(standin, supervise, data_dir, eventually, caplog):
    flag = data_dir / "flag"
    wrapper = f"import os, sys; os.path.exists({str(flag)!r}) and sys.exit(7); os.execv(sys.argv[1], sys.argv[1:])"
    spec = standin("server")
    supervisor = supervise((dataclasses.replace(spec, argv=(sys.executable, "-c", wrapper, *spec.argv)),))
    await supervisor.start()
    flag.touch()
    os.kill(supervisor.children()[0].pid, signal.SIGKILL)
    await eventually(lambda: supervisor.children()[0].state == "failed")
    (given_up,) = supervisor.children()
    assert given_up.cause == "given up after 3 quick deaths; the last: exited with status 7"
    assert given_up.restarts == 2
    assert "given up after 3 quick deaths" in caplog.text


async def test_a_child_that_waits_for_a_server_in_vain_is_not_given_up(standin, supervise, data_dir, eventually):
    flag = data_dir / "flag"
    wrapper = f"import os, sys; os.path.exists({str(flag)!r}) and sys.exit(75); os.execv(sys.argv[1], sys.argv[1:])"
    spec = standin("server")
    supervisor = supervise((dataclasses.replace(spec, argv=(sys.executable, "-c", wrapper, *spec.argv)),))
    await supervisor.start()
    flag.touch()
    os.kill(supervisor.children()[0].pid, signal.SIGKILL)
    await eventually(lambda: supervisor.children()[0].restarts > 5)
    flag.unlink()
    await eventually(lambda: supervisor.children()[0].state == "healthy")


async def test_a_child_that_had_settled_starts_a_new_count(standin, supervise, eventually):
    supervisor = supervise((standin("server"),))
    await supervisor.start()
    for restarts in range(1, 5):  # more than the attempts that a child has that keeps dying
        await asyncio.sleep(0.6)
        os.kill(supervisor.children()[0].pid, signal.SIGKILL)
        await eventually(
            lambda n=restarts: supervisor.children()[0].restarts == n and supervisor.children()[0].state == "healthy"
        )


async def test_one_that_ignores_the_signal_is_killed_with_its_tree_after_the_grace(standin, supervise, caplog):
    supervisor = supervise((standin("server", "--stubborn", "--offspring", grace_s=0.3),))
    await supervisor.start()
    family = living(supervisor.children()[0])
    assert len(family) == 2
    await supervisor.stop()
    assert processes.alive(family) == {}
    assert "server did not drain" in caplog.text


async def test_offspring_that_outlives_a_drained_child_is_ended(standin, supervise):
    supervisor = supervise((standin("server", "--offspring"),))
    await supervisor.start()
    family = living(supervisor.children()[0])
    await supervisor.stop()
    assert processes.alive(family) == {}


async def test_hurry_ends_the_patience(standin, supervise):
    supervisor = supervise((standin("server", "--stubborn", grace_s=600.0),))
    await supervisor.start()
    stop = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(0.1)
    assert not stop.done()
    supervisor.hurry()
    await stop


async def test_health_is_followed_while_it_runs(standin, supervise, eventually, monkeypatch):
    monkeypatch.setattr(keeper, "ASK_RUNNING_S", 0.1)
    supervisor = supervise((standin("server"),))
    await supervisor.start()
    (child,) = supervisor.children()
    os.kill(child.pid, signal.SIGSTOP)
    await eventually(lambda: supervisor.children()[0].state == "unhealthy")
    os.kill(child.pid, signal.SIGCONT)
    await eventually(lambda: supervisor.children()[0].state == "healthy")
    assert supervisor.children()[0].restarts == 0


async def test_a_child_that_lives_and_hangs_is_ended_and_started_again(
    standin, supervise, data_dir, eventually, monkeypatch
):
    monkeypatch.setattr(keeper, "ASK_RUNNING_S", 0.05)
    path = data_dir / "alive"
    probe = FileProbe(path, oldest_s=0.3)
    supervisor = supervise((standin("server", "--touch", str(path), probe=probe, hangs_s=0.5, grace_s=0.2),))
    await supervisor.start()
    (hung,) = supervisor.children()
    os.kill(hung.pid, signal.SIGSTOP)
    await eventually(lambda: supervisor.children()[0].restarts == 1 and supervisor.children()[0].state == "healthy")
    (again,) = supervisor.children()
    assert (again.pid != hung.pid, living(hung)) == (True, {})
    assert again.cause == "did not answer for 0 s and was ended"


async def test_the_sign_of_life_of_the_last_life_does_not_count(standin, supervise, data_dir):
    path = data_dir / "alive"
    path.touch()
    child = standin("server", probe=FileProbe(path), start_timeout_s=0.5)
    with pytest.raises(StartFailed, match="was not healthy within"):
        await supervise((child,)).start()


async def test_a_child_gets_only_the_environment_of_its_specification(standin, supervise, monkeypatch):
    monkeypatch.setenv("SOMEBODY_ELSES_TOKEN", "s3cret")
    supervisor = supervise((standin("server", env={"LANG": "C.UTF-8", "TESSERA_X": "1"}),))
    await supervisor.start()
    assert psutil.Process(supervisor.children()[0].pid).environ() == {"LANG": "C.UTF-8", "TESSERA_X": "1"}


async def test_a_child_dies_with_the_signals_of_a_fresh_shell(standin, supervise):
    """A background job of a shell ignores SIGINT, and a child must not inherit that: two children drain on it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        supervisor = supervise((standin("server", stop_signal=signal.SIGINT, grace_s=600.0),))
        await supervisor.start()
        (child,) = supervisor.children()
        await supervisor.stop()
    finally:
        signal.signal(signal.SIGINT, before)
    assert living(child) == {}


async def test_a_probe_of_a_server_that_is_away_says_no(standin):
    assert not await is_ready(standin("never started").probe)
