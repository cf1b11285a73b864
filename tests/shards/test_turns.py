"""Calls that share a pool: every item once, in turns, and errors reach the caller."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from shards.turns import in_turns


@pytest.mark.parametrize("count", [0, 1, 2, 3, 500])
def test_every_item_is_worked_on_once(count: int) -> None:
    seen: list[int] = []
    with ThreadPoolExecutor(3) as pool:
        in_turns(pool, seen.append, range(count), threads=3)
    assert sorted(seen) == list(range(count))


def test_a_short_call_does_not_wait_for_a_long_one() -> None:
    under_way, done = threading.Event(), []
    short_called = threading.Event()

    def long(item: int) -> None:
        done.append(item)
        under_way.set()
        assert short_called.wait(10)

    with ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(2) as callers:
        first = callers.submit(in_turns, pool, long, range(1000), threads=1)
        assert under_way.wait(10)
        second = callers.submit(in_turns, pool, done.append, [-1], threads=1)
        while pool._work_queue.qsize() < 3:  # the long call's other link, and two of the short call
            time.sleep(0.001)
        short_called.set()
        second.result(10)
        first.result(10)
    assert done.index(-1) < 4, "the short call came within a few turns"
    assert len(done) == 1001


def test_the_first_error_is_raised_and_ends_the_call() -> None:
    seen: list[int] = []

    def work(item: int) -> None:
        seen.append(item)
        if item == 10:
            raise ValueError("the tenth")

    with ThreadPoolExecutor(2) as pool:
        with pytest.raises(ValueError, match="the tenth"):
            in_turns(pool, work, range(10_000), threads=2)
        in_turns(pool, seen.append, [-1], threads=2)
    assert len(seen) < 20, "no more than what was under way"
    assert -1 in seen
