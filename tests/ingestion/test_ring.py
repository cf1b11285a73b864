"""The ring of tenants that the dispatcher goes round: fair, never idle while there is work, and linear in its tenants."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

from ingestion.dispatch import Ring
from ingestion.models import Lane

looks: Counter[str] = Counter()


class Watched(UUID):
    """A tenant's id that counts how often it is looked at."""

    def __hash__(self) -> int:
        looks["hash"] += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        looks["eq"] += 1
        return super().__eq__(other)

    def __gt__(self, other: UUID) -> bool:
        looks["gt"] += 1
        return super().__gt__(other)


async def test_a_tick_looks_at_each_waiting_tenant_a_few_times_alone() -> None:
    waiting = [Watched(int=number) for number in range(1000)]
    ring = Ring(Lane.MAIN, bound=4, bound_per_tenant=2, quantum=100)

    async def small(_tenant: UUID, _lane: Lane, _turn: int, _share: int) -> int:
        return 10

    for _ in range(5):
        looks.clear()
        assert await ring.give_out(waiting, {}, small) == 4
        assert looks.total() < 20 * len(waiting)
