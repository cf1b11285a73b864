"""Documents over HTTP on the running stack: identity, versions, deletion, and what bad input gets."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from ingestion.parse.rejections import SENTENCES

if TYPE_CHECKING:
    from tests.conftest import TenantAccess

SENTENCE = "The {word} lantern burns for exactly {n} hours before it has to be refilled."


async def test_an_upload_is_searchable_when_its_job_is_done(tenant: TenantAccess) -> None:
    uploaded = await tenant.upload(SENTENCE.format(word="cobalt", n=17), "lantern.txt", metadata='{"room": "attic"}')
    assert uploaded["job"]["state"] == "done"
    assert uploaded["job"]["result"]["chunks"] == 1
    hits = await tenant.search("How long does the cobalt lantern burn?")
    assert [hit["document_id"] for hit in hits] == [uploaded["document"]["id"]]
    assert "17 hours" in hits[0]["text"]
    assert hits[0]["metadata"] == {"room": "attic"}
    document = (await tenant.client.get(f"/v1/documents/{uploaded['document']['id']}")).json()
    assert (document["state"], document["active_version"], document["format"]) == ("active", 1, "txt")


async def test_the_original_comes_back_as_it_was(tenant: TenantAccess) -> None:
    content = "Zażółć gęślą jaźń\r\n".encode("cp1250") * 40
    uploaded = await tenant.upload(content, 'wei"rd\u00e4 name.txt')
    answer = await tenant.client.get(f"/v1/documents/{uploaded['document']['id']}/content")
    assert answer.content == content
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"] == "application/octet-stream"


async def test_chunks_are_listed_in_order_with_places_in_the_text(tenant: TenantAccess) -> None:
    text = "# Lamps\n\n## Oil\n\n" + "\n\n".join(SENTENCE.format(word=f"w{i}", n=i) for i in range(120)) + "\n"
    uploaded = await tenant.upload(text, "lamps.md")
    path = f"/v1/documents/{uploaded['document']['id']}/chunks"
    chunks: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = (await tenant.client.get(path, params={"limit": 3, **({"cursor": cursor} if cursor else {})})).json()
        chunks += page["items"]
        cursor = page["next"]
        if cursor is None:
            break
    assert len(chunks) == uploaded["job"]["result"]["chunks"] > 6
    assert [chunk["position"] for chunk in chunks] == list(range(len(chunks)))
    assert all(text[slice(*chunk["span"])] == chunk["text"] for chunk in chunks)
    assert all(chunk["headings"] == ["Oil"] for chunk in chunks)


async def test_the_same_content_again_is_the_same_document(tenant: TenantAccess) -> None:
    text = SENTENCE.format(word="amber", n=3)
    first = await tenant.upload(text, "a.txt", metadata='{"v": 1}')
    again = await tenant.client.post(
        "/v1/documents", files={"file": ("b.txt", text.encode())}, data={"metadata": '{"v": 2}'}
    )
    assert again.status_code == 200
    assert again.json()["document"]["id"] == first["document"]["id"]
    assert again.json()["document"]["version"] == 1
    silent = await tenant.client.post("/v1/documents", files={"file": ("c.txt", text.encode())})
    assert (silent.status_code, silent.json()["document"]["metadata"]) == (200, {"v": 2})
    hits = await tenant.search("amber lantern", filter={"v": {"eq": 2}})
    assert [hit["metadata"] for hit in hits] == [{"v": 2}]
    assert await tenant.search("amber lantern", filter={"v": {"eq": 1}}) == []


async def test_equal_uploads_at_the_same_time_make_one_document(tenant: TenantAccess) -> None:
    text = SENTENCE.format(word="teal", n=9).encode()
    answers = await asyncio.gather(
        *(tenant.client.post("/v1/documents", files={"file": ("t.txt", text)}) for _ in range(6))
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [202]
    assert len({answer.json()["document"]["id"] for answer in answers}) == 1


async def test_a_new_version_replaces_the_old_one_at_one_instant(tenant: TenantAccess) -> None:
    """Queried all the time: first the old, then the new, never both, never neither."""
    first = await tenant.upload(SENTENCE.format(word="crimson", n=11), external_id="lamp", metadata='{"v": 1}')
    uploading = asyncio.create_task(
        tenant.upload(SENTENCE.format(word="crimson", n=29), external_id="lamp", metadata='{"v": 2}')
    )
    seen: list[tuple[str, int]] = []
    while not uploading.done():
        hits = await tenant.search("How long does the crimson lantern burn?")
        assert len(hits) == 1
        seen.append((hits[0]["text"].split("exactly ")[1][:2], hits[0]["metadata"]["v"]))
    second = await uploading
    assert second["document"]["id"] == first["document"]["id"]
    assert set(seen) <= {("11", 1), ("29", 2)}
    assert seen == sorted(seen)
    hits = await tenant.search("How long does the crimson lantern burn?", k=100)
    assert [(hit["version"], "29 hours" in hit["text"]) for hit in hits] == [(2, True)]


async def test_a_deleted_document_is_invisible_from_the_answer_on(tenant: TenantAccess) -> None:
    uploaded = await tenant.upload(SENTENCE.format(word="violet", n=5))
    document_id = uploaded["document"]["id"]
    deleted = await tenant.client.delete(f"/v1/documents/{document_id}")
    assert deleted.status_code == 202
    assert await tenant.search("violet lantern") == []
    for path in ("", "/content", "/chunks"):
        assert (await tenant.client.get(f"/v1/documents/{document_id}{path}")).status_code == 404
    assert (await tenant.client.delete(f"/v1/documents/{document_id}")).status_code == 404
    job = await tenant.job(deleted.json()["job"]["id"])
    assert job["state"] == "done"
    receipt = job["result"]
    assert {name: receipt[name] for name in ("vectors", "lexical", "objects", "chunks", "versions")} == dict.fromkeys(
        ("vectors", "lexical", "objects", "chunks", "versions"), 1
    )
    assert not any(receipt["verified"].values()), "what every store was asked for afterwards"
    again = await tenant.upload(SENTENCE.format(word="violet", n=5))
    assert again["document"]["id"] != document_id
    assert len(await tenant.search("violet lantern")) == 1


async def test_a_document_deleted_while_it_is_ingested_stays_deleted(tenant: TenantAccess) -> None:
    for i in range(5):
        answer = await tenant.client.post(
            "/v1/documents", files={"file": (f"{i}.txt", SENTENCE.format(word="ochre", n=i).encode())}
        )
        deleted = await tenant.client.delete(f"/v1/documents/{answer.json()['document']['id']}")
        await tenant.job(answer.json()["job"]["id"])
        await tenant.job(deleted.json()["job"]["id"])
    assert await tenant.search("ochre lantern") == []
    assert (await tenant.client.get("/v1/documents")).json()["items"] == []


async def test_documents_are_listed_newest_first_in_pages(tenant: TenantAccess) -> None:
    ids = [(await tenant.upload(SENTENCE.format(word=f"page{i}", n=i)))["document"]["id"] for i in range(5)]
    seen: list[str] = []
    cursor = None
    while True:
        params = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await tenant.client.get("/v1/documents", params=params)).json()
        assert len(page["items"]) <= 2
        seen += [item["id"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == ids[::-1]


FAILURES = [
    ("empty.txt", b"", "document_empty"),
    ("blank.md", b" \n\n \t", "document_empty"),
    ("broken.pdf", b"%PDF-1.7\n" + b"garbage" * 50, "document_unreadable"),
    ("broken.docx", b"PK\x03\x04" + b"\x00" * 100, "document_unreadable"),
]


@pytest.mark.parametrize(("filename", "content", "code"), FAILURES, ids=[name for name, *_ in FAILURES])
async def test_an_unreadable_document_fails_with_its_code_and_keeps_its_original(
    tenant: TenantAccess, filename: str, content: bytes, code: str
) -> None:
    uploaded = await tenant.upload(content, filename)
    assert (uploaded["job"]["state"], uploaded["job"]["error"]["code"]) == ("failed", code), uploaded["job"]
    assert uploaded["job"]["attempts"] == 1
    assert uploaded["job"]["error"]["detail"].endswith(".")
    document_id = uploaded["document"]["id"]
    assert (await tenant.client.get(f"/v1/documents/{document_id}")).json()["state"] == "failed"
    assert (await tenant.client.get(f"/v1/documents/{document_id}/content")).content == content


async def test_a_failed_new_version_leaves_the_old_one_serving(tenant: TenantAccess) -> None:
    await tenant.upload(SENTENCE.format(word="indigo", n=8), external_id="kept")
    failed = await tenant.upload(b"%PDF-1.7 nonsense", "kept.pdf", external_id="kept")
    assert failed["job"]["state"] == "failed"
    hits = await tenant.search("indigo lantern")
    assert [hit["version"] for hit in hits] == [1]


async def test_an_archive_is_one_document_and_says_what_it_left_out(tenant: TenantAccess) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("lamps/oil.md", f"# Oil\n\n{SENTENCE.format(word='bronze', n=23)}")
        file.writestr("lamps/photo.png", b"\x89PNG\r\n")
    uploaded = await tenant.upload(buffer.getvalue(), "lamps.zip")
    result = uploaded["job"]["result"]
    assert result["left_out"] == [{"part": "lamps/photo.png", "code": "unsupported_type"}]
    [hit] = await tenant.search("bronze lantern", filter={"format": {"eq": "zip"}})
    assert hit["headings"] == ["lamps/oil.md", "Oil"]
    assert "23 hours" in hit["text"]


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.zip", lambda: _zip("../a.txt", b"x"), "unsafe_path"),
        ("a.zip", lambda: _zip("a.txt", b"0" * 20_000_000), "archive_bomb"),
        ("a.xml", lambda: b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "xml_entities"),
        ("a.json", lambda: b"[" * 99_999, "nested_too_deeply"),
    ],
)
async def test_hostile_files_fail_with_what_is_wrong_and_what_to_do(
    tenant: TenantAccess, name: str, content: Callable[[], bytes], code: str
) -> None:
    uploaded = await tenant.upload(content(), name)
    assert uploaded["job"]["error"] == {"code": code, "detail": SENTENCES[code]}


def _zip(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(zipfile.ZipInfo(name), content, compress_type=zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


async def test_one_bad_document_takes_no_other_of_its_batch_with_it(tenant: TenantAccess) -> None:
    sends = [
        tenant.client.post("/v1/documents", files={"file": (f"{i}.txt", SENTENCE.format(word=f"b{i}", n=i).encode())})
        for i in range(12)
    ]
    sends.insert(6, tenant.client.post("/v1/documents", files={"file": ("bad.pdf", b"%PDF-1.4 broken")}))
    answers = await asyncio.gather(*sends)
    ended = [await tenant.job(answer.json()["job"]["id"]) for answer in answers]
    assert [job["state"] for job in ended].count("done") == 12
    assert [job["state"] for job in ended].count("failed") == 1


REFUSED: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"files": {"file": ("x.exe", b"MZ\x90\x00" * 100)}}, 415, "unsupported_type", None),
    ({"files": {"file": ("x.png", b"\x89PNG\r\n\x1a\n" + b"\x00" * 100)}}, 415, "unsupported_type", None),
    ({"files": {"wrong": ("x.txt", b"x")}}, 422, "invalid_request", "body.file"),
    ({"json": {"file": "x"}}, 422, "invalid_request", "body"),
    ({"files": {"file": ("x.txt", b"x")}, "data": {"metadata": "{"}}, 422, "invalid_metadata", "metadata"),
    ({"files": {"file": ("x.txt", b"x")}, "data": {"metadata": '{"a": {}}'}}, 422, "invalid_metadata", "metadata.a"),
    ({"files": {"file": ("x.txt", b"x")}, "data": {"title": "t" * 600}}, 422, "invalid_request", "body.title"),
    ({"files": {"file": ("x.txt", b"x")}, "data": {"tenant_id": "x"}}, 422, "invalid_request", "body.tenant_id"),
]


@pytest.mark.parametrize(("sent", "status", "code", "pointer"), REFUSED)
async def test_a_bad_upload_is_refused_and_leaves_nothing(
    tenant: TenantAccess, sent: dict[str, Any], status: int, code: str, pointer: str | None
) -> None:
    answer = await tenant.client.post("/v1/documents", **sent)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["request_id"] == answer.headers["x-request-id"]
    if pointer is not None:
        assert [error["pointer"] for error in problem["errors"]] == [pointer]
    if status == 415:
        assert all(known in problem["detail"].lower() for known in ("txt", "markdown", "html", "pdf", "docx"))
    assert (await tenant.client.get("/v1/documents")).json()["items"] == []
    assert (await tenant.client.get("/v1/jobs")).json()["items"] == []


async def test_a_body_over_the_limit_is_cut_while_it_streams(tenant: TenantAccess) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.txt"\r\n\r\n'
        for _ in range(200):
            sent += 1
            yield b"x" * 1024 * 1024

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    try:
        answer = await tenant.client.post("/v1/documents", content=endless(), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    except (httpx.WriteError, httpx.ReadError):
        pass  # the server closed while we were still sending: as good a refusal
    assert sent < 120
    assert (await tenant.client.get("/v1/documents")).json()["items"] == []


async def test_a_repeated_request_with_its_key_is_answered_once(tenant: TenantAccess) -> None:
    headers = {"Idempotency-Key": "upload-1"}
    files = {"file": ("i.txt", SENTENCE.format(word="slate", n=2).encode())}
    first = await tenant.client.post("/v1/documents", files=files, headers=headers)
    again = await tenant.client.post("/v1/documents", files=files, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    other = await tenant.client.post("/v1/documents", files={"file": ("j.txt", b"other")}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    for call in (1, 2):
        chat = await tenant.client.post(
            "/v1/chat", json={"message": "slate?", "stream": False}, headers={"Idempotency-Key": "chat-1"}
        )
        assert chat.status_code == 200, call
    conversations = (await tenant.client.get("/v1/conversations")).json()["items"]
    assert len(conversations) == 1


async def test_metadata_can_be_filtered_by_every_operator(tenant: TenantAccess) -> None:
    rows = [
        {"kind": "lamp", "year": 2019, "tags": ["old", "brass"], "due": "2026-03-01"},
        {"kind": "lamp", "year": 2023, "tags": ["new"], "due": "2026-09-01", "language": "de-AT"},
        {"kind": "torch", "year": 2023, "broken": True},
    ]
    for i, row in enumerate(rows):
        await tenant.upload(SENTENCE.format(word="filtered", n=i), f"{i}.txt", metadata=json.dumps(row))
    expected: list[tuple[dict[str, Any], set[int]]] = [
        ({"kind": {"eq": "lamp"}}, {0, 1}),
        ({"kind": {"ne": "lamp"}}, {2}),
        ({"year": {"in": [2019, 1999]}}, {0}),
        ({"year": {"gt": 2019, "lte": 2023}}, {1, 2}),
        ({"tags": {"eq": "brass"}}, {0}),
        ({"due": {"lt": "2026-06-30"}}, {0}),
        ({"broken": {"exists": True}}, {2}),
        ({"not": {"broken": {"eq": True}}}, {0, 1}),
        ({"or": [{"year": {"lt": 2020}}, {"kind": {"eq": "torch"}}]}, {0, 2}),
        ({"and": [{"source": {"eq": "upload"}}, {"format": {"eq": "txt"}}, {"kind": {"eq": "torch"}}]}, {2}),
        ({"created_at": {"gte": "2020-01-01"}}, {0, 1, 2}),
        ({"language": {"eq": "de-AT"}}, {1}),
        ({"kind": {"eq": "nothing"}}, set()),
    ]
    for raw, wanted in expected:
        hits = await tenant.search("filtered lantern", filter=raw)
        found = {int(hit["text"].split("exactly ")[1][0]) for hit in hits}
        assert found == wanted, raw
