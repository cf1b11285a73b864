"""The whole of an evaluation against a small service in memory that behaves as the API says, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile

from eval.client import ApiProblem, StillUnfinished, TesseraClient
from eval.datasets import load_set
from eval.progress import Silent
from eval.report import Report, load_report
from eval.retrieval import Plan, evaluate
from eval.settle import ended_before, settle
from eval.upload import fitting_metadata, fitting_title
from tenants.errors import InvalidRequest

HARBOUR = Path(__file__).parent / "harbour"
ROOT = Path(__file__).parents[2]
ADMIN = "tsr_admin_standin"


@dataclass
class Tenant:
    """A tenant of the stand-in: `jobs` oldest first, `documents` by external id."""

    row: dict[str, Any]
    keys: dict[str, str] = field(default_factory=dict)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    searches_while_busy: int = 0


@dataclass
class Standin:
    """The API in memory. Work is done a step at a time, whenever somebody looks at a job."""

    tenants: dict[str, Tenant] = field(default_factory=dict)
    erased: list[str] = field(default_factory=list)
    unavailable_uploads: int = 0
    broken_search: bool = False
    uploads: int = 0

    def job(self, tenant: Tenant, kind: str, document: dict[str, Any] | None = None) -> dict[str, Any]:
        made = {"id": str(uuid.uuid4()), "kind": kind, "state": "queued", "stage": None, "progress": 0.0, "attempts": 0}
        made |= {"looks": 0, "error": None, "document_id": document["id"] if document else None}
        tenant.jobs.append(made)
        return made

    def work(self, tenant: Tenant) -> None:
        """End a job and begin the next; the last document makes a long partition job, and one that is meant to wait."""
        for job in tenant.jobs:
            if job["state"] == "running":
                job["looks"] += 1
                if job["kind"] == "partition" and job["looks"] < 8:
                    return
                empty = any(d["id"] == job["document_id"] and not d["text"].strip() for d in tenant.documents.values())
                job["state"] = "failed" if empty else "done"
                job["error"] = {"code": "document_empty", "detail": "The document holds no text."} if empty else None
                if job["kind"] == "ingest" and job is tenant.jobs[-1]:
                    self.job(tenant, "partition")
                    self.job(tenant, "drop_generation")
            elif job["state"] == "queued" and job["kind"] != "drop_generation":
                job["state"] = "running"
                return

    def of(self, request: Request) -> Tenant:
        key = request.headers["authorization"].removeprefix("Bearer ")
        return next(tenant for tenant in self.tenants.values() if key in tenant.keys.values())

    async def create_tenant(self, body: dict[str, Any]) -> dict[str, Any]:
        row = {"id": str(uuid.uuid4()), "plan": "standard", "settings": {}, "state": "active"} | body
        self.tenants[row["id"]] = Tenant(row)
        return row

    async def list_tenants(self) -> dict[str, Any]:
        return {"items": [tenant.row for tenant in self.tenants.values()], "next": None}

    async def change_tenant(self, tenant_id: str, body: dict[str, Any]) -> dict[str, Any]:
        self.tenants[tenant_id].row |= body
        return self.tenants[tenant_id].row

    async def erase_tenant(self, tenant_id: str) -> dict[str, Any]:
        self.erased.append(self.tenants.pop(tenant_id).row["slug"])
        return {"job": {"id": "erasure"}}

    async def create_key(self, tenant_id: str) -> dict[str, Any]:
        key_id = uuid.uuid4().hex
        self.tenants[tenant_id].keys[key_id] = f"tsr_live_{key_id}"
        return {"id": key_id, "key": f"tsr_live_{key_id}"}

    async def revoke_key(self, tenant_id: str, key_id: str) -> None:
        del self.tenants[tenant_id].keys[key_id]

    async def upload(self, request: Request) -> Any:
        if self.unavailable_uploads:
            self.unavailable_uploads -= 1
            return JSONResponse({"code": "unavailable", "status": 503, "detail": "Later."}, 503)
        tenant = self.of(request)
        answers = []
        async with request.form() as form:
            for file, row in zip(form.getlist("file"), json.loads(str(form["items"])), strict=True):
                assert isinstance(file, UploadFile)
                self.uploads += 1
                content = (await file.read()).decode()
                if content.startswith("<?xml"):
                    error = {"code": "unsupported_type", "status": 415, "detail": "XML.", "errors": []}
                    answers.append({"document": None, "job": None, "new": False, "error": error})
                    continue
                row = {"metadata": {}, "id": str(uuid.uuid4()), "text": content, "filename": file.filename} | row
                tenant.documents[row["external_id"]] = row
                job = self.job(tenant, "ingest", row)
                answers.append({"document": row, "job": job, "new": True, "error": None})
        return {"items": answers}

    async def list_documents(self, request: Request) -> dict[str, Any]:
        return {"items": list(self.of(request).documents.values()), "next": None}

    async def list_jobs(self, request: Request, state: str) -> dict[str, Any]:
        tenant = self.of(request)
        self.work(tenant)
        return {"items": [job for job in reversed(tenant.jobs) if job["state"] == state], "next": None}

    async def get_job(self, request: Request, job_id: str) -> dict[str, Any]:
        if job_id == "erasure":
            return {"id": "erasure", "state": "done", "stage": None, "progress": 1.0, "attempts": 1, "error": None}
        tenant = self.of(request)
        self.work(tenant)
        return next(job for job in tenant.jobs if job["id"] == job_id)

    async def search(self, request: Request, body: dict[str, Any]) -> Any:
        if self.broken_search:
            return JSONResponse({"code": "search_unavailable", "status": 503, "detail": "No engine answers."}, 503)
        tenant = self.of(request)
        unfinished = [job["kind"] for job in tenant.jobs if job["state"] in ("queued", "running")]
        tenant.searches_while_busy += unfinished != ["drop_generation"]
        hits = [hit for row in tenant.documents.values() for hit in passages(row, words(body["query"]))]
        hits.sort(key=lambda hit: -hit["score"])
        return {"hits": hits[: body["k"]], "timings_ms": {"ann": 1.0, "total": 2.0}, "degraded": []}

    def app(self) -> FastAPI:
        app = FastAPI()
        one = "/v1/admin/tenants/{tenant_id}"
        for method, path, handler, status in (
            ("POST", "/v1/admin/tenants", self.create_tenant, 201),
            ("GET", "/v1/admin/tenants", self.list_tenants, 200),
            ("PATCH", one, self.change_tenant, 200),
            ("DELETE", one, self.erase_tenant, 202),
            ("POST", f"{one}/keys", self.create_key, 201),
            ("DELETE", f"{one}/keys/{{key_id}}", self.revoke_key, 204),
            ("POST", "/v1/documents/bulk", self.upload, 202),
            ("GET", "/v1/documents", self.list_documents, 200),
            ("GET", "/v1/jobs", self.list_jobs, 200),
            ("GET", "/v1/jobs/{job_id}", self.get_job, 200),
            ("POST", "/v1/search", self.search, 200),
        ):
            app.add_api_route(path, handler, methods=[method], status_code=status)
        return app


def words(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.lower()) if len(word) > 3}


def passages(row: dict[str, Any], query: set[str]) -> list[dict[str, Any]]:
    """One passage a sentence, so that a document comes several times."""
    sentences = [part for part in re.split(r"(?<=\.) ", row["text"]) if part.strip()]
    scored = [(len(query & words(f"{row.get('title', '')} {sentence}")), sentence) for sentence in sentences]
    return [
        {"external_id": row["external_id"], "document_id": row["id"], "text": sentence, "score": score}
        for score, sentence in scored
        if score
    ]


@asynccontextmanager
async def serve(service: Standin) -> AsyncIterator[str]:
    server = uvicorn.Server(uvicorn.Config(service.app(), port=0, log_level="critical", lifespan="off"))
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await running


@pytest.fixture
async def service() -> AsyncIterator[tuple[Standin, str]]:
    standin = Standin()
    async with serve(standin) as url:
        yield standin, url


async def run_set(url: str, plan: Plan | None = None) -> Report:
    async with TesseraClient(url, ADMIN) as admin:
        return await evaluate(admin, plan or Plan(), load_set(HARBOUR), Silent())


async def test_a_set_goes_in_is_asked_and_leaves_nothing_behind(service: tuple[Standin, str]) -> None:
    standin, url = service
    report = await run_set(url)
    assert report.ingestion is not None
    assert (report.ingestion.documents, report.ingestion.failed) == (12, {"document_empty": 1})
    assert report.ingestion.metadata_dropped == 2  # a null and a nested object
    assert report.ingestion.ready_s >= report.ingestion.upload_s
    assert (len(report.questions), report.set.unjudged) == (7, 1)
    assert report.figures["recall@10"].value == 1.0
    q6 = next(asked for asked in report.questions if asked.id == "q6")
    assert set(q6.ranks) == {"ice", "untitled", "ferry"}
    assert report.server_ms == {"ann": 1.0, "total": 2.0}
    assert report.degraded == {}
    assert standin.tenants == {}
    assert standin.erased == [report.tenant]
    assert report.tenant.startswith("eval-harbour-")


async def test_a_kept_tenant_is_asked_again_without_uploading(service: tuple[Standin, str]) -> None:
    standin, url = service
    first = await run_set(url, Plan(tenant="eval-mine", keep=True))
    (tenant,) = standin.tenants.values()
    assert tenant.searches_while_busy == 0
    assert tenant.keys == {}
    assert standin.uploads == 12
    second = await run_set(url, Plan(tenant="eval-mine", bm25_weight=0.25))
    assert standin.uploads == 12
    assert (second.ingestion, second.choices.bm25_weight, second.tenant) == (None, 0.25, "eval-mine")
    assert tenant.row["settings"] == {"bm25_weight": 0.25}
    assert [asked.ranks for asked in second.questions] == [asked.ranks for asked in first.questions]
    assert standin.erased == []
    await run_set(url, Plan(tenant="eval-mine"))
    assert tenant.row["settings"] == {}


async def test_what_a_kept_tenant_lacks_is_completed(service: tuple[Standin, str]) -> None:
    standin, url = service
    await run_set(url, Plan(tenant="eval-mine", keep=True))
    (tenant,) = standin.tenants.values()
    del tenant.documents["ice"]
    report = await run_set(url, Plan(tenant="eval-mine"))
    assert report.ingestion is not None
    assert report.ingestion.documents == 1
    assert "ice" in tenant.documents


async def test_rows_arrive_as_the_api_takes_them(service: tuple[Standin, str]) -> None:
    standin, url = service
    await run_set(url, Plan(tenant="eval-mine", keep=True))
    (tenant,) = standin.tenants.values()
    assert tenant.row["plan"] == "evaluation"
    ferry, untitled = tenant.documents["ferry"], tenant.documents["untitled"]
    assert ferry["metadata"] == {"year": 1920, "kind": "traffic", "meta_title": "timetable"}
    assert (ferry["title"], ferry["filename"]) == ("Ferry to Mellin", "ferry.txt")
    assert "title" not in untitled
    assert untitled["filename"] == "-.txt"
    assert tenant.documents["pilot"]["metadata"] == {"kind": ["people", "traffic"]}
    assert tenant.documents["dues"]["metadata"] == {"amount": 9.0}


async def test_somebodys_tenant_is_asked_and_never_changed(service: tuple[Standin, str]) -> None:
    standin, url = service
    async with TesseraClient(url, ADMIN) as admin:
        made, _ = await admin.create_tenant("acme", "Acme", settings={"bm25_weight": 0.7})
    with pytest.raises(InvalidRequest, match="'acme'"):
        await run_set(url, Plan(tenant="acme", bm25_weight=0.1))
    report = await run_set(url, Plan(tenant="acme"))
    assert report.figures["ndcg@10"].value == 0.0
    tenant = standin.tenants[made["id"]]
    assert tenant.row["settings"] == {"bm25_weight": 0.7}
    assert (tenant.documents, tenant.keys, standin.erased) == ({}, {}, [])


async def test_a_service_that_is_away_for_a_moment_is_waited_for(service: tuple[Standin, str]) -> None:
    standin, url = service
    standin.unavailable_uploads = 2
    report = await run_set(url)
    assert report.ingestion is not None
    assert report.ingestion.refused == {}


async def test_the_scratch_tenant_goes_when_the_questions_fail(service: tuple[Standin, str]) -> None:
    standin, url = service
    standin.broken_search = True
    with pytest.raises(ApiProblem, match="No engine answers"):
        await run_set(url)
    assert standin.tenants == {}
    assert len(standin.erased) == 1


async def test_the_command_prints_and_stores_what_compare_reads(service: tuple[Standin, str], tmp_path: Path) -> None:
    _, url = service
    environment = {"TESSERA_URL": url, "TESSERA_ADMIN_KEY": ADMIN, "TESSERA_DATA_DIR": str(tmp_path)}
    corpus = tmp_path / "set"
    corpus.mkdir()
    for path in HARBOUR.iterdir():
        (corpus / path.name).write_bytes(path.read_bytes())
    with (corpus / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"_id": "xml", "title": "X", "text": "<?xml version=\'1.0\'?>"}\n')
    printed = await command(environment, "eval", "retrieval", str(corpus), "--limit", "4")
    assert "ndcg@10" in printed
    assert "latency p95, ms (k=100)" in printed
    assert "1 documents refused: unsupported_type." in printed
    assert "1 questions have no judged answer" in printed
    (stored,) = (tmp_path / "eval").glob("set-*.json")
    assert len(load_report(stored).questions) == 4
    await command(environment, "eval", "retrieval", str(corpus), "--out", str(tmp_path / "b.json"))
    compared = await command(environment, "eval", "compare", str(stored), str(tmp_path / "b.json"))
    assert "4 questions asked by both (4 and 7)" in compared
    assert "+0.0000 .. +0.0000" in compared


async def command(environment: dict[str, str], *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service.cli.main", *arguments),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


class Jobs:
    """Jobs of which the first `done` have ended; counts how often one is looked at."""

    def __init__(self, done: set[int]) -> None:
        self.done, self.looks = done, 0

    async def job(self, job_id: str) -> dict[str, Any]:
        self.looks += 1
        return {"state": "done" if int(job_id) in self.done else "queued"}

    async def jobs(self, *, state: str) -> AsyncIterator[dict[str, Any]]:
        if state == "queued":
            yield {"kind": "ingest"}


@pytest.mark.parametrize("done", [0, 1, 2, 7, 8, 499, 9_999, 10_000])
@pytest.mark.parametrize("known", [0, 1])
async def test_the_end_of_the_work_is_found_with_few_looks(done: int, known: int) -> None:
    jobs = Jobs(set(range(done)))
    names = [str(number) for number in range(10_000)]
    assert await ended_before(jobs, names, min(known, done)) == done  # type: ignore[arg-type]
    assert jobs.looks <= 30


async def test_waiting_ends_when_nothing_moves() -> None:
    with pytest.raises(StillUnfinished):
        await settle(Jobs(set()), ["0"], Silent(), patience_s=0.05)  # type: ignore[arg-type]


def test_titles_are_cut_to_what_the_api_takes() -> None:
    assert fitting_title("  A\tlong\x00 title ") == "A long  title"
    assert fitting_title(" \n ") is None
    assert fitting_title(None) is None
    assert fitting_title("x" * 600) == "x" * 512


def test_metadata_that_cannot_be_stored_is_counted() -> None:
    kept, dropped = fitting_metadata({"ok": 1, "bad key!": 1, "source": "web", "list": [1], "big": "x" * 2001})
    assert (kept, dropped) == ({"ok": 1, "meta_source": "web"}, 3)
    many = {f"k{number}": number for number in range(65)}
    assert fitting_metadata(many) == ({}, 65)
