"""The protocol of maintenance under thousands of random orders of events; `make sim` runs more.

A seed that fails is run again, alone, by `python -m tests.shards.simulation --first SEED --seeds 1`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import pytest

from tests.shards.simulation import KINDS, World, simulate

SEEDS = 100


@pytest.mark.parametrize("first", range(0, 2000, SEEDS))
def test_nothing_is_lost_doubled_stale_or_left_behind(first: int) -> None:
    happened: Counter[str] = Counter()
    for seed in range(first, first + SEEDS):
        happened.update(simulate(seed))
    assert all(happened[what] >= least for what, least in KINDS.items()), happened


def test_a_seed_can_be_replayed() -> None:
    assert simulate(11) == simulate(11)


def test_a_chunk_that_the_store_lost_is_not_passed_over() -> None:
    world = World(random.Random(3))
    for _ in range(40):
        world.new_version()
    while world.uploads:
        finish(world.upload(world.uploads.pop(0)))
    [stored] = world.vectors._spaces.values()
    stored.rows.pop(next(iter(stored.rows)))
    with pytest.raises(RuntimeError, match="chunks cannot be read"):
        finish(world.upkeep())


def finish(work: Coroutine[Any, Any, None]) -> None:
    """Let an actor go on alone until it ends."""
    with suppress(StopIteration):
        while True:
            work.send(None)
