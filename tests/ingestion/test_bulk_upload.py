"""Many documents in one request: the same outcome as one by one, at one instant, and each refused for itself."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import TenantAccess


@dataclass(frozen=True)
class Sent:
    """One upload of a random sequence."""

    text: str
    filename: str
    external_id: str | None
    title: str | None
    metadata: dict[str, Any] | None

    @property
    def item(self) -> dict[str, Any]:
        given = {"external_id": self.external_id, "title": self.title, "metadata": self.metadata}
        return {name: value for name, value in given.items() if value is not None}


async def post_bulk(tenant: TenantAccess, sent: Sequence[Sent], **options: Any) -> Any:
    files = [("file", (one.filename, one.text.encode(), "text/plain")) for one in sent]
    form = {"items": json.dumps([one.item for one in sent])}
    return await tenant.client.post("/v1/documents/bulk", files=files, data=form, **options)


async def post_each(tenant: TenantAccess, sent: Sequence[Sent]) -> list[dict[str, Any]]:
    answers = []
    for one in sent:
        form = {name: value if name != "metadata" else json.dumps(value) for name, value in one.item.items()}
        files = {"file": (one.filename, one.text.encode(), "text/plain")}
        answer = await tenant.client.post("/v1/documents", files=files, data=form)
        answers.append(answer.json() | {"new": answer.status_code == 202})
    return answers


async def documents(tenant: TenantAccess) -> list[dict[str, Any]]:
    """Everything a reader can see of the documents but ids and times, oldest first."""
    shown = []
    for item in reversed((await tenant.client.get("/v1/documents", params={"limit": 100})).json()["items"]):
        chunks = (await tenant.client.get(f"/v1/documents/{item['id']}/chunks")).json()["items"]
        texts = [chunk["text"] for chunk in chunks]
        names = ("external_id", "title", "state", "version", "active_version", "format", "metadata")
        shown.append({name: item[name] for name in names} | {"texts": texts})
    return shown


async def settled(tenant: TenantAccess) -> None:
    for _ in range(600):
        lists = [
            (await tenant.client.get("/v1/jobs", params={"state": state})).json()["items"]
            for state in ("queued", "running", "retrying")
        ]
        if not any(lists):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("jobs do not end")


async def ingest_jobs(tenant: TenantAccess) -> int:
    jobs = (await tenant.client.get("/v1/jobs", params={"limit": 100})).json()["items"]
    return sum(job["kind"] == "ingest" for job in jobs)


@pytest.mark.parametrize("seed", range(3))
async def test_in_bulk_or_one_by_one_the_outcome_is_the_same(
    tenant: TenantAccess, other_tenant: TenantAccess, seed: int
) -> None:
    chance = random.Random(seed)
    sent = [
        Sent(
            text=f"Text number {chance.randrange(4)} about the tide tables of the harbour.",
            filename=chance.choice(["a.txt", "b.txt"]),
            external_id=chance.choice([None, "x", "y"]),
            title=chance.choice([None, "Tides", "Ebb"]),
            metadata=chance.choice([None, {}, {"team": "port"}, {"team": ["sea", "land"], "year": 2026}]),
        )
        for _ in range(16)
    ]
    one_by_one, together = tenant, other_tenant
    halves = (sent[:8], sent[8:])
    outcomes: list[dict[str, Any]] = []
    for half in halves:  # the second half meets documents that are there already
        outcomes += (await post_bulk(together, half)).json()["items"]
        await settled(together)
    single: list[dict[str, Any]] = []
    for half in halves:
        single += await post_each(one_by_one, half)
        await settled(one_by_one)
    assert [item["new"] for item in outcomes] == [item["new"] for item in single]
    assert all(item["job"]["document_id"] == item["document"]["id"] for item in outcomes)
    assert await documents(together) == await documents(one_by_one)
    assert await ingest_jobs(together) == await ingest_jobs(one_by_one)


async def test_each_document_is_refused_for_itself(tenant: TenantAccess) -> None:
    files = [
        ("file", ("good.txt", b"The pilot boat leaves at six in the morning.", "text/plain")),
        ("file", ("bad.exe", b"MZ\x90\x00" * 100, "application/octet-stream")),
        ("file", ("odd.txt", b"Its metadata is not flat.", "text/plain")),
        ("file", ("name.txt", b"Its title is a number.", "text/plain")),
        ("file", ("more.txt", b"It has a field too many.", "text/plain")),
        ("file", ("none.txt", b"It has no object at all.", "text/plain")),
        ("file", ("last.txt", b"The tug boat leaves at seven in the morning.", "text/plain")),
    ]
    items = [{}, {}, {"metadata": {"a": {"b": 1}}}, {"title": 7}, {"tenant_id": "x"}, None, {"external_id": "last"}]
    answer = await tenant.client.post("/v1/documents/bulk", files=files, data={"items": json.dumps(items)})
    assert answer.status_code == 202
    outcomes = answer.json()["items"]
    refused = [(item["error"] or {}).get("code") for item in outcomes]
    assert refused == [None, "unsupported_type", "invalid_metadata", *["invalid_request"] * 3, None]
    pointers = [[error["pointer"] for error in item["error"]["errors"]] for item in outcomes[2:6]]
    assert pointers == [["items.2.metadata.a"], ["items.3.title"], ["items.4.tenant_id"], ["items.5"]]
    await settled(tenant)
    assert {item["external_id"] for item in await documents(tenant)} == {None, "last"}


@pytest.mark.parametrize(
    ("files", "items", "pointer"),
    [
        ([], None, "body.file"),
        (["a"] * 101, None, "body.file"),
        (["a"], "{}", "body.items"),
        (["a"], "[", "body.items"),
        (["a"], "[{}, {}]", "body.items"),
        (["a"], "[" * 100_000, "body.items"),
    ],
)
async def test_a_malformed_form_is_refused_whole(
    tenant: TenantAccess, files: list[str], items: str | None, pointer: str
) -> None:
    parts: list[Any] = [("file", (f"{name}{at}.txt", name.encode(), "text/plain")) for at, name in enumerate(files)]
    form = {} if items is None else {"items": items}
    parts = parts or [("note", (None, b"no file at all"))]
    for headers in ({}, {"Idempotency-Key": "same"}):
        answer = await tenant.client.post("/v1/documents/bulk", files=parts, data=form, headers=headers)
        problem = answer.json()
        assert answer.status_code == 422, problem
        assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert (await tenant.client.get("/v1/documents")).json()["items"] == []


async def test_nothing_new_is_200_and_a_repeat_with_its_key_is_replayed(tenant: TenantAccess) -> None:
    sent = [Sent(f"Buoy {n} is green.", f"{n}.txt", str(n), None, None) for n in range(100)]
    headers = {"Idempotency-Key": "bulk-1"}
    first = await post_bulk(tenant, sent, headers=headers)
    again = await post_bulk(tenant, sent, headers=headers)
    assert (first.status_code, again.headers["idempotency-replayed"]) == (202, "true")
    assert again.json() == first.json()
    changed = await post_bulk(tenant, sent[:-1], headers=headers)
    assert changed.json()["code"] == "idempotency_key_reused"
    same = await post_bulk(tenant, sent)
    assert same.status_code == 200
    assert not any(item["new"] for item in same.json()["items"])
    await settled(tenant)
    assert len(await documents(tenant)) == 100


async def test_overlapping_bulks_at_once_make_each_document_once(tenant: TenantAccess) -> None:
    texts = [Sent(f"Berth {n} is reserved.", f"{n}.txt", None, None, None) for n in range(60)]
    orders = [texts, texts[::-1], texts[20:] + texts[:20]]
    answers = await asyncio.gather(*(post_bulk(tenant, order) for order in orders))
    assert all(answer.status_code in (200, 202) for answer in answers)
    made = [item["document"]["id"] for answer in answers for item in answer.json()["items"] if item["new"]]
    assert len(made) == len(set(made)) == 60
    await settled(tenant)
    assert len(await documents(tenant)) == 60
