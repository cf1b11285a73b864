"""The load under which processes die: clients that write, each to documents of its own, and clients that read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from tests.faults.client import Client
from tests.faults.history import Change, new_word

_KEPT = 12
"""Documents that a writer keeps before it deletes more than it adds."""
_WEIGHTS = {"new": 30, "replace": 30, "delete": 22, "bulk": 12, "large": 4, "revive": 8, "again": 6}


@dataclass
class Writer:
    """Writes to its own documents, one change at a time, so that it knows what should stand."""

    client: Client
    number: int
    random: Random
    names: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    """Documents whose last change has an unknown outcome: nothing more is done to them."""

    async def run(self, stop: asyncio.Event) -> None:
        """Write until told to stop."""
        while not stop.is_set():
            await getattr(self, f"_{self._choice()}")()
            await asyncio.sleep(self.random.uniform(0.02, 0.25))

    def _choice(self) -> str:
        weights = dict(_WEIGHTS)
        if len(self._standing()) > _KEPT:
            weights |= {"new": 5, "bulk": 2, "revive": 2, "delete": 60}
        [choice] = self.random.choices(list(weights), list(weights.values()))
        return choice

    async def _new(self) -> None:
        await self._upload([self._put(self._fresh(), self.random.randint(1, 12))])

    async def _large(self) -> None:
        await self._upload([self._put(self._fresh(), self.random.randint(150, 400))])

    async def _bulk(self) -> None:
        standing = self._standing()
        names = {self.random.choice(standing)} if standing else set()
        names |= {self._fresh() for _ in range(self.random.randint(2, 5))}
        await self._upload([self._put(name, self.random.randint(1, 6)) for name in sorted(names)])

    async def _replace(self) -> None:
        if standing := self._standing():
            await self._upload([self._put(self.random.choice(standing), self.random.randint(1, 12))])

    async def _revive(self) -> None:
        gone = [name for name in self.names if name not in self.lost and self._last(name).kind == "delete"]
        if gone:
            await self._upload([self._put(self.random.choice(gone), self.random.randint(1, 6))])

    async def _again(self) -> None:
        """Upload the same content once more: it is the same version of the same document."""
        if not (standing := self._standing()):
            return
        before = self._last(self.random.choice(standing))
        again = Change(before.tenant, before.name, before.step, "put", before.word, before.parts)
        await self.client.upload([again], insist=False)
        was, now = (before.document_id, before.version), (again.document_id, again.version)
        if again.outcome == "acknowledged" and now != was:
            self.client.history.oddities.append(f"the content of document {was} was uploaded again and made {now}")

    async def _delete(self) -> None:
        if not (standing := self._standing()):
            return
        name = self.random.choice(standing)
        change = self.client.history.delete(self.client.tenant, name, self._last(name).document_id)
        await self.client.delete(change, insist=self.random.random() < 0.8)
        self._note([change])

    async def _upload(self, changes: Sequence[Change]) -> None:
        await self.client.upload(changes, insist=self.random.random() < 0.8)
        self._note(changes)

    def _note(self, changes: Sequence[Change]) -> None:
        self.lost.update(change.name for change in changes if change.outcome in ("unknown", "open"))

    def _put(self, name: str, parts: int) -> Change:
        return self.client.history.put(self.client.tenant, name, new_word(self.random), parts)

    def _fresh(self) -> str:
        self.names.append(f"writer{self.number}-{len(self.names)}")
        return self.names[-1]

    def _last(self, name: str) -> Change:
        changes = self.client.history.changes[self.client.tenant, name]
        return next((c for c in reversed(changes) if c.outcome != "refused"), changes[-1])

    def _standing(self) -> list[str]:
        known = [name for name in self.names if name not in self.lost]
        last = {name: self._last(name) for name in known}
        return [name for name in known if last[name].kind == "put" and last[name].outcome == "acknowledged"]


async def keep_reading(client: Client, random: Random, stop: asyncio.Event) -> None:
    """Search, chat, list and read, for versions old and new, until told to stop."""
    while not stop.is_set():
        changes = [change for change in client.history.by_word.values() if change.tenant == client.tenant]
        recent = changes[-40:] if random.random() < 0.7 else changes
        if recent:
            await _one_read(client, random, random.choice(recent))
        await asyncio.sleep(random.uniform(0.02, 0.15))


async def _one_read(client: Client, random: Random, change: Change) -> None:
    dice = random.random()
    if dice < 0.75:
        await client.search(change.word)
    elif dice < 0.80:
        await client.chat(change.word)
    elif dice < 0.90:
        await client.glance()
    elif change.document_id:
        await client.read(change, content=dice < 0.95)
