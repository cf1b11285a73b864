"""Waiting for jobs: who is asked, when it gives up, what it bears."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from eval.client import ApiProblem, Json, StillUnfinished, Unreachable
from eval.job_wait import JobWatch, wait


@dataclass
class Ledger:
    """Jobs that move on by one step whenever they are looked at; `lives` counts the looks until the end."""

    lives: dict[str, int]
    outages: int = 0
    asked: list[str] = field(default_factory=list)
    pages: int = 0

    async def job(self, job_id: str) -> Json:
        self.asked.append(job_id)
        if self.outages:
            self.outages -= 1
            raise Unreachable("away")
        if job_id not in self.lives:
            raise ApiProblem("not_found", 404, "There is no job with this id.", request_id="r1")
        return self._seen(job_id)

    async def jobs(self) -> AsyncIterator[Json]:
        self.pages += 1
        for job_id in reversed(self.lives):
            yield self._seen(job_id)

    def _seen(self, job_id: str) -> Json:
        self.lives[job_id] -= 1
        state = "running" if self.lives[job_id] > 0 else "done"
        return {"id": job_id, "state": state, "stage": None, "progress": 1 / (1 + self.lives[job_id]), "attempts": 1}


async def finish(ledger: Ledger, ids: list[str], **limits: float) -> list[Json]:
    return await wait(
        JobWatch(ledger, ids, None), deadline_s=limits.get("deadline_s"), patience_s=limits.get("patience_s", 9)
    )


async def test_results_come_in_the_order_asked_for_and_twice_asked_is_once_answered() -> None:
    done = await finish(Ledger({"a": 2, "b": 1}), ["b", "a", "b"])
    assert [(job["id"], job["state"]) for job in done] == [("b", "done"), ("a", "done")]


async def test_many_jobs_are_read_from_the_list_and_not_asked_for_one_by_one() -> None:
    ledger = Ledger({f"j{number}": 1 for number in range(500)})
    assert len(await finish(ledger, list(ledger.lives))) == 500
    assert (ledger.pages, ledger.asked) == (1, [])


async def test_a_job_that_the_list_lacks_is_asked_for() -> None:
    ledger = Ledger({f"j{number}": 1 for number in range(20)})
    with pytest.raises(ApiProblem, match="r1"):
        await finish(ledger, [*ledger.lives, "unknown"])
    assert ledger.asked == ["unknown"]


async def test_changes_are_told_once_each() -> None:
    told: list[float] = []
    watch = JobWatch(Ledger({"a": 3}), ["a"], lambda job: told.append(job["progress"]))
    await wait(watch, deadline_s=None, patience_s=9)
    assert told == [1 / 3, 1 / 2, 1]


async def test_a_short_outage_is_borne_and_a_long_one_is_not() -> None:
    assert (await finish(Ledger({"a": 1}, outages=2), ["a"]))[0]["state"] == "done"
    with pytest.raises(Unreachable):
        await finish(Ledger({"a": 1}, outages=99), ["a"])


@pytest.mark.parametrize("limits", [{"patience_s": 0.0}, {"deadline_s": 0.0}])
async def test_it_gives_up_and_says_how_many_are_left(limits: dict[str, float]) -> None:
    class Stuck(Ledger):
        def _seen(self, job_id: str) -> Json:
            return {"id": job_id, "state": "queued", "stage": None, "progress": 0.0, "attempts": 0}

    with pytest.raises(StillUnfinished, match="2 jobs"):
        await finish(Stuck({"a": 1, "b": 1}), ["a", "b"], **limits)
