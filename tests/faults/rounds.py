"""Rounds of `kill -9` under load, and the judgement of what clients saw.

`schedule` is a function of the seed alone: which processes die in which round, at which moment, and how. What each
writer does is another. When things happen is up to the machine, so the same seed is the same plan, not the same run.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx

from service.local.state import StackState
from tests.faults import checker, victims
from tests.faults.checker import Violation
from tests.faults.client import LOST, Client
from tests.faults.history import History, Name
from tests.faults.load import Writer, keep_reading

MOMENTS = ("any", "any", "acknowledged", "deleted", "ingest running", "embedding", "ingest done", "delete running")
"""When a round strikes: at any time, right after an answer, or when a job is first seen in a state or stage."""
WAIT_FOR_MOMENT_S = 3.0
QUIET_S, WAITS_S = 120.0, 20.0
WRITERS, READERS = 3, 2


@dataclass(frozen=True)
class Round:
    """One round: who dies, when, and what follows."""

    number: int
    victims: tuple[str, ...]
    whole: bool
    """Whether everything the process started dies with it at the same instant."""
    moment: str
    delay_s: float
    """From the moment to the kill."""
    waits: bool
    """Whether the next round waits until the victims are healthy again."""

    def __str__(self) -> str:
        """Return what the report shows."""
        tree = " with its tree" if self.whole else ""
        return f"round {self.number}: {' and '.join(self.victims)}{tree}, {self.delay_s:.2f} s after {self.moment!r}"


def schedule(seed: int, rounds: int) -> list[Round]:
    """Return the rounds of a seed. No process dies more often than the supervisor's patience allows."""
    random, planned = Random(f"rounds {seed}"), list[Round]()
    for number in range(1, rounds + 1):
        recent = [name for one in planned[-3:] for name in one.victims]
        rested = [name for name in victims.VICTIMS if recent.count(name) < 2]
        chosen = tuple(random.sample(rested, 2 if random.random() < 0.15 else 1))
        planned.append(
            Round(
                number,
                chosen,
                whole=random.random() < 0.5,
                moment=random.choice(MOMENTS),
                delay_s=random.choice((0.0, random.uniform(0, 0.05), random.uniform(0, 0.4), random.uniform(0, 1.5))),
                waits=random.random() < 0.75,
            )
        )
    return planned


_AFTER_ALL = 1_000_000
"""More rounds than there are: what is written while stores are held still has words of its own."""


class Moments:
    """What clients notice, for a round that waits for it."""

    def __init__(self) -> None:
        self._wanted, self._came = "", asyncio.Event()

    def notice(self, moment: str) -> None:
        """Note that a moment has come."""
        if moment == self._wanted:
            self._came.set()

    async def come(self, moment: str) -> bool:
        """Wait for the next such moment, not for long; return whether it came."""
        self._wanted, self._came = moment, asyncio.Event()
        if moment == "any":
            return True
        try:
            async with asyncio.timeout(WAIT_FOR_MOMENT_S):
                await self._came.wait()
        except TimeoutError:
            return False
        return True


@dataclass
class Trial:
    """A stack under load, its history, and the rounds done so far."""

    stack: StackState
    seed: int
    admin: httpx.AsyncClient
    writers: int = WRITERS
    readers: int = READERS
    """Of each tenant."""
    history: History = field(default_factory=History)
    moments: Moments = field(default_factory=Moments)
    clients: list[Client] = field(default_factory=list)
    checked: set[Name] = field(default_factory=set)
    done: list[str] = field(default_factory=list)

    @property
    def data_dir(self) -> Path:
        """Return the stack's folder."""
        return Path(self.stack.env["TESSERA_DATA_DIR"])

    async def run(self, rounds: int, *, look_every: int) -> None:
        """Do the rounds; look at everything that changed after each `look_every`, and at all of it in the end.

        Raises:
            AssertionError: with seed, rounds, violations, stories and logs.
        """
        planned = schedule(self.seed, rounds)
        for start in range(0, rounds, look_every):
            async with self._loaded(start):
                for one in planned[start : start + look_every]:
                    await self._strike(one)
            await self._look(everything=start + look_every >= rounds)

    async def hold_still(self, names: Sequence[str], seconds: float) -> None:
        """Stop each of these for so long under load, then look at everything. Raises as `run` does."""
        async with self._loaded(_AFTER_ALL):
            for name in names:
                await asyncio.sleep(0.5)
                async with victims.held_still(self.data_dir, name):
                    await asyncio.sleep(seconds)
                self.say(f"{name} held still for {seconds:.0f} s")
        await self._look(everything=True)

    async def _strike(self, one: Round) -> None:
        came = await self.moments.come(one.moment)
        await asyncio.sleep(one.delay_s)
        killed = {name: victims.kill(self.data_dir, name, whole=one.whole) for name in one.victims}
        if one.waits:
            took = max([await victims.back(self.data_dir, name, pid) for name, pid in killed.items()])
            self.say(f"{one}{'' if came else ' (which did not come)'}; back after {took:.1f} s")
            await asyncio.sleep(0.5)
        else:
            self.say(f"{one}{'' if came else ' (which did not come)'}; not waited for")

    @asynccontextmanager
    async def _loaded(self, start: int) -> AsyncIterator[None]:
        """Keep writers and readers at work."""
        stop = asyncio.Event()
        work = []
        for place, client in enumerate(self.clients):
            for number in range(self.writers):
                random = Random(f"writer {self.seed} {start} {place} {number}")
                work.append(Writer(client, 1000 * start + 100 * place + number, random).run(stop))
            readers = (Random(f"reader {self.seed} {start} {place} {number}") for number in range(self.readers))
            work += [keep_reading(client, random, stop) for random in readers]
        tasks = [asyncio.create_task(one) for one in work]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def _look(self, *, everything: bool) -> None:
        """Wait until nothing is under way, then compare all there is with the model."""
        began = time.monotonic()
        try:
            await victims.all_healthy(self.data_dir)
            failed = [problem for client in self.clients for problem in await self._recovered(client)]
        except AssertionError as error:
            failed = [Violation(("", ""), str(error))]
        quiet = time.monotonic() - began
        names = set(self.history.changes) - (set() if everything else self.checked)
        found = failed + checker.violations(self.history)
        for client in self.clients:
            mine = sorted(name for tenant, name in names if tenant == client.tenant)
            found += checker.violations_at_rest(self.history, await client.at_rest(mine))
        found += await self._stores_differ()
        self.checked |= names
        self.say(f"quiet after {quiet:.1f} s; {len(names)} documents, {len(self.history.sights)} reads looked at")
        assert not found, self._complaint(found)

    async def _recovered(self, client: Client) -> list[Violation]:
        """Wait until a tenant has no unfinished job; return what failed for good.

        A job that loses its worker three times is listed as failed with that cause. It is tried again here, once no
        worker is killed any more, and must then end well, unless its document was replaced or deleted since.
        """
        problems = await self._settled(client)
        if any(LOST in problem.sentence for problem in problems) and (again := await client.retry_lost()):
            self.say(f"{again} jobs lost their worker three times and are tried again")
            problems = await self._settled(client)
            assert not await client.retry_lost(), f"jobs lose their worker although none is killed: {problems}"
        return [problem for problem in problems if LOST not in problem.sentence]

    async def _settled(self, client: Client) -> list[Violation]:
        """Wait until a tenant has no unfinished job; return what failed."""
        unfinished: list[dict[str, Any]] = [{}]
        began = told = time.monotonic()
        while unfinished and time.monotonic() - began < QUIET_S:
            states = [await client.jobs(state) for state in ("queued", "retrying", "running")]
            # The upkeep of the index and what is put off on purpose may go on.
            unfinished = [job for jobs in states for job in jobs if job["kind"] in ("ingest", "delete", "purge")]
            if unfinished and time.monotonic() - told > WAITS_S:
                told = time.monotonic()
                self.say(f"after {told - began:.0f} s {len(unfinished)} jobs are unfinished, such as {unfinished[-1]}")
            await asyncio.sleep(0.2)
        left = [Violation((client.tenant, ""), f"after {QUIET_S:.0f} s not ended: {job}") for job in unfinished]
        failed = await client.jobs("failed")
        return left + [Violation((client.tenant, ""), f"failed: {job}") for job in failed]

    async def _stores_differ(self) -> list[Violation]:
        """Have every store compared with Postgres, of all tenants and of none, originals and words included."""
        report = await self._fsck({"deep": True})
        tenants = report["tenants"]
        self.say(f"fsck: {report['total']} differences in {tenants['checked']} tenants, {report['seconds']:.1f} s")
        reports = [report] if report["total"] else []
        for worst in tenants["with_differences"]:
            reports.append(await self._fsck({"deep": True, "tenant_id": worst["tenant_id"]}))
        return [Violation(("", ""), f"fsck: {one['differences']}: {one['examples']}") for one in reports]

    async def _fsck(self, body: dict[str, Any]) -> dict[str, Any]:
        job: dict[str, Any] = {}
        deadline = time.monotonic() + QUIET_S
        while job.get("state") not in ("done", "failed"):
            try:
                if not job:
                    asked = await self.admin.post("/v1/admin/fsck", json=body)
                    job = asked.raise_for_status().json()["job"]
                job = (await self.admin.get(f"/v1/jobs/{job['id']}")).raise_for_status().json()
            except httpx.HTTPError:  # a connection that an earlier fault broke
                await asyncio.sleep(0.5)
            assert time.monotonic() < deadline, f"fsck does not end: {job}"
            await asyncio.sleep(0.1)
        assert job["state"] == "done", job
        report: dict[str, Any] = job["result"]
        return report

    def say(self, line: str) -> None:
        """Note a line of the report and show it."""
        self.done.append(line)
        print(line, file=sys.stderr, flush=True)

    def _complaint(self, found: Iterable[Violation]) -> str:
        found = list(found)
        names = list(dict.fromkeys(violation.name for violation in found if violation.name[1]))
        return "\n".join(
            [
                f"seed {self.seed}: {len(found)} violations",
                *(f"  {violation.name[0]}/{violation.name[1]}: {violation.sentence}" for violation in found[:20]),
                *self.done[-12:],
                *(self.history.story(name) for name in names[:6]),
                f"answers: {dict(self.history.answers.most_common())}",
                victims.log_tails(self.data_dir),
            ]
        )


@asynccontextmanager
async def trial(
    stack: StackState, seed: int, *, tenants: int = 2, writers: int = WRITERS, readers: int = READERS
) -> AsyncIterator[Trial]:
    """Make tenants with a client each; the second tenant's index has collections of its own."""
    headers = {"Authorization": f"Bearer {stack.admin_key}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=60) as admin:
        made = Trial(stack, seed, admin, writers, readers)
        for number in range(tenants):
            slug = f"faults-{seed}-{number}-{int(time.time())}"
            body = {"slug": slug, "name": slug}
            tenant = (await admin.post("/v1/admin/tenants", json=body)).raise_for_status().json()["id"]
            answer = await admin.post(f"/v1/admin/tenants/{tenant}/keys", json={"name": "faults"})
            key = answer.raise_for_status().json()["key"]
            made.clients.append(Client.of(stack.url, slug, key, made.history, made.moments.notice))
            if number == 1:
                placed = await admin.post(f"/v1/admin/tenants/{tenant}/placement", json={"tier": "dedicated"})
                placed.raise_for_status()
        made.say(f"seed {seed}: {' '.join(client.tenant for client in made.clients)}")
        try:
            yield made
        finally:
            for client in made.clients:
                await client.aclose()
