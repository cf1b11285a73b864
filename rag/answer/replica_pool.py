"""The replicas of a model: which one the next request goes to, and the requests that are under way."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from rag.answer.ejection import Ejection
from rag.answer.replica import Clock, Replica

_HEDGE_FACTOR = 3.0
_HEDGE_LEAST_S = 0.25
_HEDGES_SAVED = 20.0
_LOOK_S = 0.25
_numbers = itertools.count()


class NoReplica(Exception):
    """No replica is left to ask."""


class Lease:
    """One request at one replica. It ends once, and says what became of it."""

    def __init__(self, replica: Replica, clock: Clock, freed: asyncio.Event) -> None:
        self.replica = replica
        self._clock, self._freed = clock, freed
        self._number, self._began = next(_numbers), clock()
        self._open = True
        replica.begun(self._number, self._began)

    @property
    def waited_s(self) -> float:
        """Seconds since it began."""
        return self._clock() - self._began

    def first_token(self) -> float:
        """Note the first token; return the seconds that it took."""
        return self.replica.first_token(self._number, self._clock())

    def overtaken(self) -> None:
        """Note that another replica was faster."""
        self.replica.overtaken(self._number, self._clock())

    def failed(self, *, gone: bool) -> None:
        """Note a failure of the replica; `gone` as in `Ejection.failed`."""
        ejection: Ejection = self.replica.ejection
        ejection.failed(self._clock(), gone=gone)

    def busy(self, seconds: float) -> None:
        """Note that the replica wants no requests for so long."""
        self.replica.busy(self._clock() + seconds)

    def end(self) -> None:
        """Give the place back; a second time does nothing."""
        if self._open:
            self._open = False
            self.replica.ended(self._number)
            self._freed.set()


class HedgeBudget:
    """A share of the requests may be sent twice, so that a slow day does not double the load (Dean and Barroso, "The
    Tail at Scale", 2013)."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._saved = _HEDGES_SAVED / 2 if share else 0.0

    def asked(self) -> None:
        """Note a request."""
        self._saved = min(_HEDGES_SAVED, self._saved + self._share)

    @property
    def has_one(self) -> bool:
        """Whether one may be sent a second time."""
        return self._saved >= 1

    def spend(self) -> None:
        """Count one that is."""
        self._saved -= 1


@dataclass
class ReplicaPool:
    """The replicas of one model; models on the same servers share them."""

    replicas: Sequence[Replica]
    clock: Clock
    freed: asyncio.Event
    hedges: HedgeBudget
    dice: random.Random
    used: Callable[[], None]
    """Called for each request: the servers are looked at while they are in use."""
    closing: set[asyncio.Task[None]] = field(default_factory=set)
    """What closes connections at this moment."""

    def close(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what closes a connection beside the caller.

        A task that anyio cancels is cancelled again at every turn of the loop: it cannot wait for the end of anything.
        """
        task = asyncio.create_task(work)
        self.closing.add(task)
        task.add_done_callback(self.closing.discard)

    async def lease(self, tried: Collection[Replica], deadline: float) -> Lease:
        """Return a place at the replica that suits best, when one has room.

        Args:
            tried: those that this answer was asked of already.
            deadline: on the pool's clock.

        Raises:
            NoReplica: none is left, or none had room in time.
        """
        self.used()
        while (now := self.clock()) < deadline:
            replica = self.choose(tried)
            if replica is not None:
                return Lease(replica, self.clock, self.freed)
            # Those that are full, or want no more for the moment, are worth waiting for.
            if not any(one.up for one in self._others(tried)):
                break
            self.freed.clear()
            try:
                async with asyncio.timeout(min(deadline - now, _LOOK_S)):
                    await self.freed.wait()
            except TimeoutError:
                continue
        raise NoReplica

    def lease_now(self, tried: Collection[Replica]) -> Lease | None:
        """Return a place if there is one at once, for a second try beside the first."""
        replica = self.choose(tried, probing=False)
        return None if replica is None else Lease(replica, self.clock, self.freed)

    def choose(self, tried: Collection[Replica] = (), *, probing: bool = True) -> Replica | None:
        """Return the replica for one more request, None when none is usable or has room.

        Of those that are neither slow nor pressed two are drawn, and the one that costs less is taken: the best of all
        would be everybody's choice at once, since others read the same figures (Mitzenmacher, "The Power of Two
        Choices in Randomized Load Balancing", 2001).
        """
        now, others = self.clock(), self._others(tried)
        fastest = self._fastest_s()
        if probing:
            for one in others:
                if one.probe_due(now, fastest):
                    return one
        usable = [one for one in others if one.usable(now) and one.has_room] or self._suspects(now, others)
        prompt = [one for one in usable if not one.is_slow(now, fastest)] or usable
        free = [one for one in prompt if not one.is_pressed(now)] or prompt
        drawn = self.dice.sample(free, min(2, len(free)))
        return min(drawn, key=lambda one: one.cost(now), default=None)

    def _suspects(self, now: float, others: Sequence[Replica]) -> list[Replica]:
        """When every replica of several is left alone, the fault is rather on this side: those that can be reached are
        asked all the same (Envoy's panic threshold)."""
        if len(self.replicas) < 2 or any(one.up for one in self.replicas):
            return []
        return [one for one in others if one.may_be_asked(now) and one.has_room]

    def hedge_after_s(self, budget_s: float) -> float:
        """Seconds after which a first token is late: three times the fastest replica's average, at most a quarter of
        the time there is for it."""
        fastest = self._fastest_s()
        return min(max(_HEDGE_FACTOR * fastest, _HEDGE_LEAST_S), budget_s / 4) if fastest else budget_s / 4

    def late_after_s(self, budget_s: float) -> float:
        """Seconds after which a silent replica has failed: as `hedge_after_s`, but never less than a quarter second."""
        return max(_HEDGE_LEAST_S, self.hedge_after_s(budget_s))

    def _others(self, tried: Collection[Replica]) -> list[Replica]:
        return [one for one in self.replicas if one not in tried]

    def _fastest_s(self) -> float:
        now = self.clock()
        return min((one.average_s for one in self.replicas if one.average_s and one.usable(now)), default=0.0)
