"""Jobs under control on the running stack: their place, following them, cancelling, trying again."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from eval.event_stream import parse_events

if TYPE_CHECKING:
    import httpx

    from tests.conftest import TenantAccess

LONG = "\n\n".join(f"The {n}th beacon of the marsh is lit by keeper number {n * 7} at dusk." for n in range(1500))


async def begin(tenant: TenantAccess, text: str, name: str = "long.txt") -> dict[str, Any]:
    answer = await tenant.client.post("/v1/documents", files={"file": (name, text.encode())})
    assert answer.status_code == 202, answer.text
    return answer.json()


async def until_running(tenant: TenantAccess, job_id: str) -> None:
    for _ in range(600):
        if (await tenant.client.get(f"/v1/jobs/{job_id}")).json()["state"] == "running":
            return
        await asyncio.sleep(0.05)
    pytest.fail("the job did not begin")


async def followed(client: httpx.AsyncClient, job_id: str) -> list[tuple[str, dict[str, Any]]]:
    async with client.stream("GET", f"/v1/jobs/{job_id}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        return [(event.name, json.loads(event.data)) async for event in parse_events(response.aiter_bytes())]


async def test_a_job_is_followed_to_its_end(tenant: TenantAccess) -> None:
    uploaded = await begin(tenant, LONG[:20_000])
    seen = await followed(tenant.client, uploaded["job"]["id"])
    names = [name for name, _ in seen]
    assert set(names[:-1]) <= {"progress"}
    assert names[-1] == "done"
    assert seen[-1][1]["state"] == "done"
    progress = [job["progress"] for _, job in seen]
    assert progress == sorted(progress)
    assert all(job["id"] == uploaded["job"]["id"] for _, job in seen)
    again = await followed(tenant.client, uploaded["job"]["id"])
    assert [name for name, _ in again] == ["done"], "a job that has ended says so at once"


async def test_a_running_document_is_cancelled_and_tried_again(tenant: TenantAccess) -> None:
    uploaded = await begin(tenant, LONG[:60_000])
    job_id, document_id = uploaded["job"]["id"], uploaded["document"]["id"]
    await until_running(tenant, job_id)
    cancelled = await tenant.client.post(f"/v1/jobs/{job_id}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    document = (await tenant.client.get(f"/v1/documents/{document_id}")).json()
    assert (document["state"], document["active_version"]) == ("failed", None)
    again = await tenant.client.post(f"/v1/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "job_ended")
    # What comes after it is not held back by what its worker was doing.
    other = await tenant.upload("The last ferry leaves at 22:10 from the north pier.", "ferry.txt")
    assert other["job"]["state"] == "done"
    assert (await tenant.client.get(f"/v1/jobs/{job_id}")).json()["state"] == "cancelled"
    assert await tenant.search("Who lights the 5th beacon of the marsh?", filter={"title": {"eq": "long"}}) == []
    retried = await tenant.client.post(f"/v1/jobs/{job_id}/retry")
    assert (retried.status_code, retried.json()["state"], retried.json()["error"]) == (200, "queued", None)
    done = await followed(tenant.client, job_id)
    assert (done[-1][1]["state"], done[-1][1]["attempts"]) == ("done", 1)
    assert (await tenant.search("Who lights the 5th beacon of the marsh?"))[0]["document_id"] == document_id


async def test_a_queued_document_says_where_it_stands(tenant: TenantAccess) -> None:
    text = LONG[:3_000]
    begun = await asyncio.gather(*(begin(tenant, f"{n}\n\n{text}") for n in range(16)))
    jobs = [one["job"] for one in begun]
    listed = (await tenant.client.get("/v1/jobs", params={"limit": 100, "state": "queued"})).json()["items"]
    by_age = sorted((job["created_at"], job["position"]) for job in listed if job["position"] is not None)
    places = [place for _, place in by_age]  # as they were up to two seconds ago
    assert places == sorted(set(places)), "each waiting job has a place of its own, behind those that came before it"
    assert {job["waiting_for"] for job in listed} <= {"turn", "worker"}
    assert {job["priority"] for job in listed} <= {"interactive"}
    answers = await asyncio.gather(*(tenant.client.post(f"/v1/jobs/{job['id']}/cancel") for job in jobs))
    assert {answer.status_code for answer in answers} <= {200, 409}
    ended = [(await tenant.client.get(f"/v1/jobs/{job['id']}")).json() for job in jobs]
    assert {job["state"] for job in ended} <= {"cancelled", "done"}
    assert all(job["position"] is None for job in ended)
    cancelled = sum(job["state"] == "cancelled" for job in ended)
    assert cancelled
    body = {"state": "cancelled", "code": "no_such_code"}
    assert (await tenant.client.post("/v1/jobs/retry", json=body)).json() == {"retried": 0}
    answer = await tenant.client.post("/v1/jobs/retry", json={"state": "cancelled"})
    assert answer.json() == {"retried": cancelled}
    seen = await asyncio.gather(*(followed(tenant.client, job["id"]) for job in jobs))
    assert {events[-1][1]["state"] for events in seen} == {"done"}


async def test_failed_documents_are_tried_again_together(tenant: TenantAccess) -> None:
    failed = [await tenant.upload(f"{n} is no PDF", f"{n}.pdf") for n in range(3)]
    assert {one["job"]["error"]["code"] for one in failed} == {"document_unreadable"}
    gone = failed.pop()["document"]["id"]
    assert (await tenant.client.delete(f"/v1/documents/{gone}")).status_code == 202
    answer = await tenant.client.post("/v1/jobs/retry", json={"code": "document_unreadable"})
    assert answer.json() == {"retried": 2}, "the deleted one is left out"
    for one in failed:
        assert (await followed(tenant.client, one["job"]["id"]))[-1][1]["state"] == "failed"
        assert (await tenant.client.get(f"/v1/documents/{one['document']['id']}")).json()["state"] == "failed"


async def test_what_cannot_be_cancelled_or_retried_is_refused(tenant: TenantAccess) -> None:
    uploaded = await tenant.upload("The archive is on the third floor.", "a.txt")
    deletion = (await tenant.client.delete(f"/v1/documents/{uploaded['document']['id']}")).json()["job"]
    refused = await tenant.client.post(f"/v1/jobs/{deletion['id']}/cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "not_cancellable")
    refused = await tenant.client.post(f"/v1/jobs/{uploaded['job']['id']}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "job_not_failed")
    refused = await tenant.client.post("/v1/jobs/retry", json={"state": "done"})
    assert refused.status_code == 422


async def test_a_version_that_was_replaced_is_not_tried_again(tenant: TenantAccess) -> None:
    failed = await tenant.upload("This is no PDF.", "a.pdf", external_id="note")
    await tenant.upload("The note says that the boats are in the shed.", "a.txt", external_id="note")
    refused = await tenant.client.post(f"/v1/jobs/{failed['job']['id']}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "superseded")


async def test_a_tenant_cannot_open_streams_without_end(tenant: TenantAccess) -> None:
    uploaded = await begin(tenant, LONG)
    path = f"/v1/jobs/{uploaded['job']['id']}/events"
    async with asyncio.timeout(60):
        opened = [tenant.client.stream("GET", path) for _ in range(21)]
        answers = [await one.__aenter__() for one in opened]
    statuses = [answer.status_code for answer in answers]
    for one in opened:
        await one.__aexit__(None, None, None)
    await tenant.client.post(f"/v1/jobs/{uploaded['job']['id']}/cancel")
    assert statuses == [200] * 20 + [429]
    for _ in range(100):
        async with tenant.client.stream("GET", path) as answer:
            if answer.status_code == 200:
                return
        await asyncio.sleep(0.1)
    pytest.fail("the places of closed streams were not given back")
