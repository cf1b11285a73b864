"""Which replica is asked: health, load, what a server says of itself and what requests show."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any, cast

import pytest

from rag.answer.ejection import IN_A_ROW, LONGEST_S, Ejection
from rag.answer.replica import PROBE_EVERY_S, Reading, Replica
from rag.answer.replica_pool import HedgeBudget, Lease, NoReplica, ReplicaPool
from rag.answer.replica_watch import server_root
from rag.answer.server_metrics import ServerLoad, read_load


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def pool_of(number: int, clock: Clock, *, most: int = 100) -> ReplicaPool:
    replicas = [Replica(f"http://r{place}/v1", cast(Any, None), most, fresh_s=3.0) for place in range(number)]
    return ReplicaPool(replicas, clock, asyncio.Event(), HedgeBudget(0.1), random.Random(7), lambda: None)


def says(replica: Replica, clock: Clock, **load: float) -> None:
    values = {"running": 0.0, "waiting": 0.0, "cache": 0.0, **load}
    replica.reading = Reading(ServerLoad(**values), clock(), replica.outstanding)


def chosen(pool: ReplicaPool, times: int = 200) -> Counter[str]:
    return Counter(one.url for _ in range(times) if (one := pool.choose()) is not None)


def took(pool: ReplicaPool, clock: Clock, replica: Replica, seconds: float) -> None:
    lease = Lease(replica, clock, pool.freed)
    clock.now += seconds
    lease.first_token()
    lease.end()


PAGE = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 50.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 100.0
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 40.0
python_gc_objects_collected_total{generation="0"} 5.0
"""


def test_vllms_figures_are_read_and_engines_are_added() -> None:
    assert read_load(PAGE) == ServerLoad(5, 1, 0.5, 100, 40)
    older = PAGE.replace("kv_cache_usage_perc", "gpu_cache_usage_perc")
    assert read_load(older) == ServerLoad(5, 1, 0.5, 100, 40)


@pytest.mark.parametrize(
    "page",
    [
        "",
        "<html>not metrics</html>",
        "http_requests_total 5\n",
        PAGE.replace("} 3.0", "} NaN"),
        PAGE.replace("} 3.0", "} -9"),
        PAGE.replace("} 3.0", "} +Inf"),
        PAGE.replace("} 3.0", "} 1e30"),
        PAGE.replace("} 0.5", "} 87"),
        PAGE.replace("} 3.0", "} three"),
        PAGE.replace('model_name="m"} 1.0', 'model_name="m 1.0'),
    ],
)
def test_what_cannot_be_is_not_believed(page: str) -> None:
    assert read_load(page) is None


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("http://host:8000/v1", "http://host:8000"),
        ("https://host/vllm/v1/", "https://host/vllm"),
        ("http://host/openai", "http://host/openai"),
    ],
)
def test_health_and_metrics_are_beside_the_api(url: str, root: str) -> None:
    assert server_root(url) == root


def test_without_figures_the_least_outstanding_is_asked() -> None:
    clock = Clock()
    pool = pool_of(2, clock)
    held = [Lease(pool.replicas[0], clock, pool.freed) for _ in range(3)]
    assert set(chosen(pool)) == {"http://r1/v1"}
    for lease in held:
        lease.end()
    assert set(chosen(pool)) == {"http://r0/v1", "http://r1/v1"}


def test_requests_of_other_processes_count_by_what_the_server_says() -> None:
    clock = Clock()
    pool = pool_of(2, clock)
    says(pool.replicas[0], clock, running=5)
    says(pool.replicas[1], clock, running=2)
    assert set(chosen(pool)) == {"http://r1/v1"}
    # Since then this process has begun five there itself.
    held = [Lease(pool.replicas[1], clock, pool.freed) for _ in range(5)]
    assert set(chosen(pool)) == {"http://r0/v1"}
    clock.now += 10  # both readings are too old to be believed
    for lease in held:
        lease.end()
    assert set(chosen(pool)) == {"http://r0/v1", "http://r1/v1"}


@pytest.mark.parametrize("pressure", [{"waiting": 1}, {"cache": 0.95}])
def test_a_pressed_server_is_passed_over_while_there_is_another(pressure: dict[str, float]) -> None:
    clock = Clock()
    pool = pool_of(2, clock)
    says(pool.replicas[0], clock, **pressure)
    says(pool.replicas[1], clock, running=60)
    assert set(chosen(pool)) == {"http://r1/v1"}
    says(pool.replicas[1], clock, running=60, waiting=9)
    assert set(chosen(pool)) == {"http://r0/v1"}


def test_of_two_equally_busy_servers_the_one_with_the_freer_cache_is_asked() -> None:
    clock = Clock()
    pool = pool_of(2, clock)
    says(pool.replicas[0], clock, running=4, cache=0.6)
    says(pool.replicas[1], clock, running=4, cache=0.1)
    assert set(chosen(pool)) == {"http://r1/v1"}


def test_a_server_that_claims_to_be_idle_gets_no_more_than_its_share() -> None:
    clock = Clock()
    pool = pool_of(2, clock)
    held = []
    for _ in range(40):
        says(pool.replicas[0], clock)  # again and again: nothing runs here
        lease = pool.lease_now([])
        assert lease is not None
        held.append(lease)
    assert pool.replicas[0].outstanding == pool.replicas[1].outstanding == 20


def test_power_of_two_choices_spreads_what_stale_figures_would_send_to_one() -> None:
    clock = Clock()
    pool = pool_of(4, clock)
    for place, replica in enumerate(pool.replicas):
        says(replica, clock, running=10 + place)
    counts = chosen(pool, 600)
    assert counts["http://r3/v1"] == 0, "the busiest of any two is never asked"
    assert 0.4 < counts["http://r0/v1"] / 600 < 0.6, "and the idlest is not everybody's choice"


def test_a_slow_replica_is_seen_by_its_oldest_request_and_probed_now_and_then() -> None:
    clock = Clock()
    pool = pool_of(3, clock)
    fast, other, slow = pool.replicas
    took(pool, clock, fast, 0.2)
    took(pool, clock, other, 0.3)
    lease = Lease(slow, clock, pool.freed)
    clock.now += 0.4
    assert not slow.is_slow(clock(), 0.2)
    clock.now += 0.4
    assert slow.is_slow(clock(), 0.2)
    assert "http://r2/v1" not in chosen(pool), "no first token came, but it is known to be late"
    clock.now += 1
    lease.first_token()
    lease.end()
    assert "http://r2/v1" not in chosen(pool)
    clock.now += PROBE_EVERY_S
    assert chosen(pool) == {"http://r2/v1": 200}, "one request finds out"
    probe = Lease(slow, clock, pool.freed)
    assert "http://r2/v1" not in chosen(pool), "one, not all"
    probe.end()
    for _ in range(12):
        clock.now += PROBE_EVERY_S
        took(pool, clock, slow, 0.2)
    assert "http://r2/v1" in chosen(pool), "it is as fast as the others again"


@pytest.mark.parametrize("away", ["unreachable", "ejected", "busy"])
def test_a_replica_that_is_away_is_no_measure_of_slowness(away: str) -> None:
    clock = Clock()
    pool = pool_of(3, clock)
    took(pool, clock, pool.replicas[0], 0.1)
    for replica in pool.replicas[1:]:
        took(pool, clock, replica, 1.0)
    assert pool.hedge_after_s(40) == pytest.approx(0.3)
    lease = Lease(pool.replicas[0], clock, pool.freed)
    if away == "unreachable":
        pool.replicas[0].reachable = False
    elif away == "ejected":
        lease.failed(gone=True)
    else:
        lease.busy(60)
    lease.end()
    assert pool.hedge_after_s(40) == pytest.approx(3.0)
    assert not pool.replicas[1].is_slow(clock(), pool._fastest_s())


def test_a_slow_replica_is_asked_when_it_alone_has_room() -> None:
    clock = Clock()
    pool = pool_of(2, clock, most=1)
    took(pool, clock, pool.replicas[0], 0.1)
    took(pool, clock, pool.replicas[1], 3)
    clock.now += 1
    held = pool.lease_now([])
    assert held is not None
    assert held.replica is pool.replicas[0]
    assert pool.choose() is pool.replicas[1]


def test_failures_eject_for_growing_pauses_and_one_request_looks_again() -> None:
    ejection, now = Ejection(), 0.0
    for _ in range(IN_A_ROW - 1):
        ejection.failed(now, gone=False)
        assert not ejection.out
    ejection.answered()
    for _ in range(IN_A_ROW):
        ejection.failed(now, gone=False)
    assert ejection.out
    pauses = []
    for _ in range(8):
        for _ in range(5):
            ejection.failed(now, gone=True)  # requests from before do not make it longer
        began = now
        while not ejection.due(now):
            now += 0.5
        pauses.append(now - began)
        ejection.failed(now, gone=True)
    assert pauses[0] == 1
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_S
    ejection.answered()
    assert not ejection.out


def test_a_server_that_is_away_for_hours_is_probed_every_half_minute() -> None:
    ejection, now = Ejection(), 0.0
    for _ in range(1_100):
        ejection.failed(now, gone=True)
        now += LONGEST_S
        assert ejection.due(now)


def test_a_server_that_was_not_reached_is_left_alone_at_once_and_probed_by_one() -> None:
    clock = Clock()
    pool = pool_of(2, clock)
    gone = pool.replicas[0]
    lease = Lease(gone, clock, pool.freed)
    lease.failed(gone=True)
    lease.end()
    assert set(chosen(pool)) == {"http://r1/v1"}
    clock.now += 1.1
    assert pool.choose() is gone
    probe = Lease(gone, clock, pool.freed)
    assert set(chosen(pool)) == {"http://r1/v1"}
    probe.first_token()
    probe.end()
    assert set(chosen(pool)) == {"http://r0/v1", "http://r1/v1"}


def test_when_every_replica_seems_to_fail_those_that_can_be_reached_are_asked_all_the_same() -> None:
    clock = Clock()
    pool = pool_of(3, clock)
    pool.replicas[0].reachable = False
    for replica in pool.replicas[1:]:
        held = [Lease(replica, clock, pool.freed) for _ in range(IN_A_ROW + 1)]
        for lease in held[1:]:
            lease.failed(gone=False)
            lease.end()
    assert not any(replica.up for replica in pool.replicas)
    assert set(chosen(pool)) == {"http://r1/v1", "http://r2/v1"}
    single = pool_of(1, clock)
    lease = Lease(single.replicas[0], clock, single.freed)
    lease.failed(gone=True)
    lease.end()
    assert single.choose() is None, "the built-in answers at once, a request a while looks whether it is back"


def test_a_server_that_wants_no_more_is_passed_over_for_as_long_as_it_says() -> None:
    clock = Clock()
    pool = pool_of(2, clock)
    lease = Lease(pool.replicas[0], clock, pool.freed)
    lease.busy(2.0)
    lease.end()
    assert set(chosen(pool)) == {"http://r1/v1"}
    clock.now += 2.1
    assert set(chosen(pool)) == {"http://r0/v1", "http://r1/v1"}


async def test_when_all_are_full_one_waits_for_room_and_when_all_are_away_one_does_not() -> None:
    loop = asyncio.get_running_loop()
    replica = Replica("http://r/v1", cast(Any, None), 1, fresh_s=3.0)
    pool = ReplicaPool([replica], loop.time, asyncio.Event(), HedgeBudget(0), random.Random(7), lambda: None)
    first = await pool.lease([], loop.time() + 5)
    waiting = asyncio.create_task(pool.lease([], loop.time() + 5))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    first.end()
    second = await asyncio.wait_for(waiting, 2)
    with pytest.raises(NoReplica):
        await pool.lease([], loop.time() + 0.05)
    second.end()
    second.end()
    assert replica.outstanding == 0
    replica.reachable = False
    with pytest.raises(NoReplica):
        await asyncio.wait_for(pool.lease([], loop.time() + 60), 2)


def test_second_requests_are_a_share_of_all() -> None:
    budget = HedgeBudget(0.1)
    spent = 0
    for _ in range(1000):
        budget.asked()
        if budget.has_one:
            budget.spend()
            spent += 1
    assert 100 <= spent <= 120
    none = HedgeBudget(0)
    none.asked()
    assert not none.has_one
