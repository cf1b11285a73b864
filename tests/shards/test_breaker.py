"""The circuit breaker, on a clock that the test moves."""

from __future__ import annotations

import pytest

from shards.breaker import Breaker

PATIENCE_S = 10.0


class Clock:
    """Says the time that it was told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def broken(clock: Clock) -> Breaker:
    breaker = Breaker(PATIENCE_S, clock)
    for _ in range(2):
        assert breaker.admits()
        breaker.failed(waited_s=PATIENCE_S)
    return breaker


def test_a_silent_server_is_left_alone_and_asked_again_by_one_at_a_time() -> None:
    clock = Clock()
    breaker = broken(clock)
    assert not breaker.admits()
    clock.now += 2.1
    assert breaker.admits(), "one tries"
    assert not breaker.admits(), "the others do not wait with it"
    breaker.failed(waited_s=PATIENCE_S)
    assert not breaker.admits()


def test_an_answer_opens_it_for_all() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += 2.1
    assert breaker.admits()
    breaker.answered()
    assert breaker.admits()
    assert breaker.admits()


def test_a_refusal_at_once_costs_nothing_and_breaks_nothing() -> None:
    breaker = Breaker(PATIENCE_S, Clock())
    for _ in range(50):
        assert breaker.admits()
        breaker.failed(waited_s=0.01)


@pytest.mark.parametrize(("patience_s", "try_s"), [(0.8, None), (10.0, 0.4)])
def test_who_waits_less_than_a_second_waits_in_vain_too(patience_s: float, try_s: float | None) -> None:
    breaker = Breaker(patience_s, Clock(), try_s=try_s)
    for _ in range(2):
        assert breaker.admits()
        breaker.failed(waited_s=try_s or patience_s)
    assert not breaker.admits()


def test_one_that_tried_and_was_refused_at_once_is_not_waited_for() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += 2.1
    assert breaker.admits()
    breaker.failed(waited_s=0.01)
    clock.now += 2.1
    assert breaker.admits(), "the server may have been starting"


def test_an_answer_between_two_calls_in_vain_starts_the_count_anew() -> None:
    breaker = Breaker(PATIENCE_S, Clock())
    for _ in range(5):
        breaker.failed(waited_s=PATIENCE_S)
        breaker.answered()
        assert breaker.admits()


def test_whoever_tried_and_never_came_back_does_not_keep_it_closed() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += 2.1
    assert breaker.admits()
    clock.now += PATIENCE_S + 0.1
    assert breaker.admits()
