"""The ring of tenants that the dispatcher goes round: fair, never idle while there is work, linear in its tenants."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

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


QUANTUM = 100
LEAST = QUANTUM // 16
LARGEST = 10 * QUANTUM
A, B, C = (UUID(int=number) for number in (1, 2, 3))


@dataclass
class Queue:
    """What tenants have waiting, as costs of batches; `paused` ones are listed and have nothing due."""

    ring: Ring
    due: dict[UUID, list[int]]
    paused: set[UUID] = field(default_factory=set)
    flying: list[UUID] = field(default_factory=list)
    taken: Counter[UUID] = field(default_factory=Counter)

    async def tick(self) -> int:
        waiting = sorted({tenant for tenant, costs in self.due.items() if costs} | self.paused)
        return await self.ring.give_out(waiting, dict(Counter(self.flying)), self._next)

    async def _next(self, tenant: UUID, _lane: Lane, _turn: int, _share: int) -> int | None:
        if not self.due.get(tenant):
            return None
        cost = self.due[tenant].pop(0)
        self.flying.append(tenant)
        self.taken[tenant] += max(cost, LEAST)
        return cost

    def idle_with_work(self) -> list[UUID]:
        """Return the tenants that have work and a place, while the ring has room."""
        flying = Counter(self.flying)
        if flying.total() >= self.ring.bound:
            return []
        return [t for t, costs in self.due.items() if costs and flying[t] < self.ring.bound_per_tenant]


def ring(bound: int, bound_per_tenant: int) -> Ring:
    return Ring(Lane.MAIN, bound, bound_per_tenant, QUANTUM)


async def test_who_has_a_large_document_goes_on_beside_small_imports() -> None:
    queue = Queue(ring(4, 3), {A: [LARGEST, 1, 1], B: [1] * 1000})
    rounds = 0
    while queue.due[A]:
        await queue.tick()
        queue.flying.pop(0)
        rounds += 1
    assert rounds <= 2 * 16 * (LARGEST // QUANTUM + 2)


async def test_who_uploads_one_by_one_does_not_keep_out_who_owes() -> None:
    queue = Queue(ring(1, 1), {A: [LARGEST, 1], B: []})
    for _ in range(16 * (LARGEST // QUANTUM + 2)):
        queue.flying.clear()
        queue.due[B] = [1]
        await queue.tick()
    assert queue.due[A] == []


async def test_who_has_nothing_due_keeps_out_nobody() -> None:
    queue = Queue(ring(4, 3), {A: [LARGEST] * 5}, paused={B, C})
    for _ in range(5):
        assert await queue.tick()
        queue.flying.clear()
        if not queue.due[A]:
            return
    raise AssertionError("places stayed empty")


costs = st.integers(0, LARGEST)
bounds = st.tuples(st.integers(1, 6), st.integers(1, 6))
step = st.tuples(st.integers(0, 4), costs, st.booleans(), st.integers(0, 6))
"""A tenant, the cost of a batch of its own, whether it has paused work, and how many batches end."""


@settings(max_examples=150, deadline=None)
@given(bounds, st.lists(step, max_size=60))
def test_no_place_stays_empty_while_there_is_work(
    most: tuple[int, int], steps: list[tuple[int, int, bool, int]]
) -> None:
    async def run() -> None:
        queue = Queue(ring(*most), {UUID(int=number): [] for number in range(5)})
        for number, cost, pauses, ended in steps:
            queue.due[UUID(int=number)].append(cost)
            (queue.paused.add if pauses else queue.paused.discard)(UUID(int=number))
            del queue.flying[:ended]
            await queue.tick()
            assert queue.idle_with_work() == []
            assert max(Counter(queue.flying).values(), default=0) <= most[1]
            assert len(queue.flying) <= most[0]

    asyncio.run(run())


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(costs, min_size=1, max_size=5), min_size=2, max_size=4),
    st.integers(1, 4),
    st.lists(st.integers(1, 4), min_size=20, max_size=80),
)
def test_those_who_always_have_work_get_the_same(mixes: list[list[int]], bound: int, ends: list[int]) -> None:
    """However their batches differ; so nobody waits for longer than the others take to get this much each."""

    async def run() -> None:
        queue = Queue(ring(bound, bound), {UUID(int=n): mix * 400 for n, mix in enumerate(mixes)})
        for ended in ends:
            await queue.tick()
            del queue.flying[:ended]
            shares = [queue.taken[tenant] for tenant in queue.due]
            assert max(shares) - min(shares) <= 2 * (QUANTUM + LARGEST)

    asyncio.run(run())
