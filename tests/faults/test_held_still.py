"""A store that is there and does not answer (SIGSTOP): work waits for it, and every read tells the truth or refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.rounds import trial

if TYPE_CHECKING:
    from service.local.state import StackState

STILL_S = 3.0
"""`make faults` holds each store still for half a minute."""


async def test_nothing_is_lost_while_stores_do_not_answer(stack: StackState) -> None:
    async with trial(stack, seed=1) as made:
        await made.hold_still(("postgres", "redis", "milvus"), STILL_S)
