"""Moving to another edition under random orders of events, crashes and changes of mind.

A seed that fails is run again, alone, by `python -m tests.shards.edition_simulation --first SEED --seeds 1`.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.shards.edition_simulation import KINDS, simulate

SEEDS = 50


@pytest.mark.parametrize("first", range(0, 200, SEEDS))
def test_nothing_is_lost_doubled_stale_or_left_behind(first: int) -> None:
    happened: Counter[str] = Counter()
    for seed in range(first, first + SEEDS):
        happened.update(simulate(seed))
    assert all(happened[what] >= least for what, least in KINDS.items()), happened
