"""A slice of the rounds of `make faults`: processes are killed under load, and nothing is lost, doubled or undead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.rounds import schedule, trial
from tests.faults.victims import VICTIMS

if TYPE_CHECKING:
    from service.local.state import StackState

SEED, ROUNDS = 39, 6
"""A seed whose first rounds kill each kind of process once, at six different moments."""


def test_the_slice_kills_every_kind_of_process() -> None:
    assert {name for one in schedule(SEED, ROUNDS) for name in one.victims} == set(VICTIMS)


async def test_nothing_is_lost_doubled_or_undead(fragile_stack: StackState) -> None:
    async with trial(fragile_stack, SEED, writers=2, readers=1) as made:
        await made.run(ROUNDS, look_every=ROUNDS)
    acknowledged = [c for changes in made.history.changes.values() for c in changes if c.outcome == "acknowledged"]
    assert {change.kind for change in acknowledged} == {"put", "delete"}, "the load did its work meanwhile"
