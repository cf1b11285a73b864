"""An asynchronous client of Tessera's HTTP API, for the command line, the demo and measurements."""

from __future__ import annotations

import asyncio
import json
import mimetypes
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote

from eval.bulk import NewDocument
from eval.event_stream import parse_events
from eval.job_wait import JobWatch, StillUnfinished, wait
from eval.transport import ApiProblem, Json, Transport, Unreachable, json_of, problem_from

__all__ = ["ApiProblem", "Download", "Json", "StillUnfinished", "TesseraClient", "Unreachable", "Uploaded"]
_PAGE = 100
_PATIENCE_S = 300.0


@dataclass(frozen=True)
class Uploaded:
    """The answer to an upload. `new` is false when the same content was there already; `job` is its newest job."""

    document: Json
    job: Json | None
    new: bool


@dataclass(frozen=True)
class Download:
    """An original on its way: the name it was uploaded under and its bytes."""

    filename: str
    blocks: AsyncIterator[bytes]


class TesseraClient:
    """One address and one key: a tenant's, or the admin key for what is under `/v1/admin`.

    Every call raises `ApiProblem` when the service refuses and `Unreachable` when it does not answer. Objects are
    returned as the service's JSON. `timeout_s` is the longest silence, not the length of a whole answer.
    """

    def __init__(self, base_url: str, key: str, *, timeout_s: float = 120.0) -> None:
        self._transport = Transport(base_url, key, timeout_s=timeout_s)
        self.url = self._transport.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    # Tenants and keys: the admin key.

    async def create_tenant(
        self,
        slug: str,
        name: str,
        *,
        plan: str | None = None,
        settings: Mapping[str, Any] | None = None,
        placement: Mapping[str, Any] | None = None,
    ) -> tuple[Json, bool]:
        """Return the tenant, and whether it was made now: the same slug and body again give the same tenant."""
        body = {"slug": slug, "name": name} | _given(plan=plan, settings=settings, placement=placement)
        response = await self._transport.send("POST", "/v1/admin/tenants", json=body)
        return json_of(response), response.status_code == 201

    def tenants(self) -> AsyncIterator[Json]:
        """Yield all tenants, newest first."""
        return self._pages("/v1/admin/tenants")

    async def tenant(self, tenant_id: str) -> Json:
        """Return a tenant."""
        return await self._json("GET", _path("/v1/admin/tenants", tenant_id))

    async def all_shards(self) -> Json:
        """Return how the engines stand as a whole."""
        return await self._json("GET", "/v1/admin/shards")

    async def shards(self, tenant_id: str) -> Json:
        """Return how the index of a tenant stands."""
        return await self._json("GET", f"/v1/admin/tenants/{tenant_id}/shards")

    async def ask_upkeep(self, tenant_id: str, what: str, **body: Any) -> Json:
        """Ask for `placement`, `reindex` (`reindex/pause` ...) or `calibrate`; return the job."""
        answer = await self._json("POST", f"/v1/admin/tenants/{tenant_id}/{what}", json=body)
        job: Json = answer["job"]
        return job

    async def fsck(self, tenant_id: str | None = None, **body: Any) -> Json:
        """Check a tenant's stores, or those of the whole installation; return the job, whose result is the report."""
        return await self._job_of("POST", "/v1/admin/fsck", json=_given(tenant_id=tenant_id, **body))

    async def change_tenant(self, tenant_id: str, **changes: Any) -> Json:
        """Change name, plan or settings."""
        return await self._json("PATCH", _path("/v1/admin/tenants", tenant_id), json=changes)

    async def suspend_tenant(self, tenant_id: str) -> Json:
        """Suspend a tenant: its keys are refused from now on."""
        return await self._json("POST", _path("/v1/admin/tenants", tenant_id, "suspend"))

    async def resume_tenant(self, tenant_id: str) -> Json:
        """Resume a suspended tenant."""
        return await self._json("POST", _path("/v1/admin/tenants", tenant_id, "resume"))

    async def delete_tenant(self, tenant_id: str) -> Json:
        """Delete a tenant with all it has; return the job, whose `result` will be the receipt."""
        return await self._job_of("DELETE", _path("/v1/admin/tenants", tenant_id))

    async def create_key(self, tenant_id: str, name: str, *, expires_at: str | None = None) -> Json:
        """Return a new key; its `key` is never shown again. `expires_at` is an RFC 3339 time."""
        body = {"name": name} | _given(expires_at=expires_at)
        return await self._json("POST", _path("/v1/admin/tenants", tenant_id, "keys"), json=body)

    def keys(self, tenant_id: str) -> AsyncIterator[Json]:
        """Yield a tenant's keys, newest first, revoked ones too."""
        return self._pages(_path("/v1/admin/tenants", tenant_id, "keys"))

    async def revoke_key(self, tenant_id: str, key_id: str) -> None:
        """Revoke a key."""
        await self._transport.send("DELETE", _path("/v1/admin/tenants", tenant_id, "keys", key_id))

    # Documents and jobs: a tenant's key.

    async def upload(
        self,
        source: Path | bytes,
        *,
        filename: str | None = None,
        external_id: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Uploaded:
        """Upload a file, streamed from disk, or bytes, which need a `filename`. It is searchable when its job is done.

        Raises:
            OSError: the file cannot be read.
        """
        name = filename or (source.name if isinstance(source, Path) else "document")
        kind = _media_type(name)
        form = _given(external_id=external_id, title=title, metadata=json.dumps(metadata) if metadata else None)
        content = await asyncio.to_thread(source.open, "rb") if isinstance(source, Path) else source
        try:
            files = {"file": (name, content, kind)}
            response = await self._transport.send("POST", "/v1/documents", data=form, files=files)
        finally:
            if not isinstance(content, bytes):
                await asyncio.to_thread(content.close)
        answer = json_of(response)
        return Uploaded(answer["document"], answer["job"], response.status_code == 202)

    async def upload_many(self, documents: Sequence[NewDocument]) -> list[Uploaded | ApiProblem]:
        """Upload documents in one request, at most 100; return what became of each: one refused stops no other."""
        files = [("file", (one.filename, one.content, _media_type(one.filename))) for one in documents]
        items = [_given(external_id=one.external_id, title=one.title, metadata=one.metadata) for one in documents]
        form = {"items": json.dumps(items)}
        answer = await self._json("POST", "/v1/documents/bulk", data=form, files=files)
        return [_outcome(item) for item in answer["items"]]

    def documents(
        self, *, state: str | None = None, filter: Mapping[str, Any] | None = None, page: int = _PAGE
    ) -> AsyncIterator[Json]:
        """Yield documents, newest first, `page` of them a request."""
        wanted = _given(state=state, filter=json.dumps(filter) if filter is not None else None)
        return self._pages("/v1/documents", wanted, page)

    async def document(self, document_id: str) -> Json:
        """Return a document."""
        return await self._json("GET", _path("/v1/documents", document_id))

    def versions(self, document_id: str) -> AsyncIterator[Json]:
        """Yield the versions of a document whose originals are kept, newest first."""
        return self._pages(_path("/v1/documents", document_id, "versions"))

    async def delete_document(self, document_id: str) -> Json:
        """Delete a document: it is invisible now; return the job that removes the last traces."""
        return await self._job_of("DELETE", _path("/v1/documents", document_id))

    @asynccontextmanager
    async def download(self, document_id: str) -> AsyncGenerator[Download, None]:
        """Give the original of a document, to be read within the context."""
        async with self._transport.stream("GET", _path("/v1/documents", document_id, "content")) as response:
            name = _filename(response.headers.get("content-disposition", ""))
            yield Download(name or document_id, response.aiter_bytes())

    def chunks(self, document_id: str) -> AsyncIterator[Json]:
        """Yield the chunks of a document's active version, in order."""
        return self._pages(_path("/v1/documents", document_id, "chunks"))

    def jobs(self, *, state: str | None = None) -> AsyncIterator[Json]:
        """Yield jobs, newest first."""
        return self._pages("/v1/jobs", _given(state=state))

    async def job(self, job_id: str) -> Json:
        """Return a job; with the admin key, one that erases a tenant."""
        return await self._json("GET", _path("/v1/jobs", job_id))

    async def job_events(self, job_id: str) -> AsyncGenerator[Json, None]:
        """Yield a job as it stands now and whenever it changes, until it has ended.

        Raises:
            ApiProblem: the stream broke off (`events_broken_off`).
        """
        async with self._transport.stream("GET", _path("/v1/jobs", job_id, "events")) as response:
            async for event in parse_events(response.aiter_bytes()):
                if event.name in ("progress", "done"):
                    yield json.loads(event.data)
                if event.name == "done":
                    return
            request_id = response.headers.get("x-request-id", "")
        raise ApiProblem("events_broken_off", 502, "The events broke off.", request_id=request_id)

    async def cancel_job(self, job_id: str) -> Json:
        """Cancel a job that waits or runs; return it."""
        return await self._json("POST", _path("/v1/jobs", job_id, "cancel"))

    async def retry_job(self, job_id: str) -> Json:
        """Queue a failed or cancelled job again; return it."""
        return await self._json("POST", _path("/v1/jobs", job_id, "retry"))

    async def retry_jobs(self, *, code: str | None = None) -> int:
        """Queue failed jobs again, those with an error code or all; return how many, 10,000 at most."""
        answer = await self._json("POST", "/v1/jobs/retry", json={"state": "failed"} | _given(code=code))
        return int(answer["retried"])

    async def wait_for_job(
        self,
        job_id: str,
        *,
        deadline_s: float | None = None,
        patience_s: float = _PATIENCE_S,
        on_change: Callable[[Json], None] | None = None,
    ) -> Json:
        """Return a job when it has ended; see `wait_for_jobs`."""
        found = await self.wait_for_jobs([job_id], deadline_s=deadline_s, patience_s=patience_s, on_change=on_change)
        return found[0]

    async def wait_for_jobs(
        self,
        job_ids: Sequence[str],
        *,
        deadline_s: float | None = None,
        patience_s: float = _PATIENCE_S,
        on_change: Callable[[Json], None] | None = None,
    ) -> list[Json]:
        """Return the jobs, in this order, when all are done, failed or cancelled.

        `on_change` gets a job when it is first seen and whenever its state, stage or progress has changed.

        Raises:
            StillUnfinished: `deadline_s` is over, or nothing has changed for `patience_s`.
        """
        return await wait(JobWatch(self, job_ids, on_change), deadline_s=deadline_s, patience_s=patience_s)

    # Questions: a tenant's key.

    async def search(
        self,
        query: str,
        *,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,
        exact: bool = False,
        debug: bool = False,
    ) -> Json:
        """Return `{hits, timings_ms, degraded, debug}`."""
        body = {"query": query, "k": k, "exact": exact, "debug": debug} | _given(filter=filter)
        return await self._json("POST", "/v1/search", json=body)

    async def ask(
        self,
        message: str,
        *,
        conversation_id: str | None = None,
        filter: Mapping[str, Any] | None = None,
        model: str | None = None,
    ) -> Json:
        """Return the whole answer at once."""
        given = _given(conversation_id=conversation_id, filter=filter, model=model)
        body = {"message": message, "stream": False} | given
        return await self._json("POST", "/v1/chat", json=body)

    async def chat(
        self,
        message: str,
        *,
        conversation_id: str | None = None,
        filter: Mapping[str, Any] | None = None,
        model: str | None = None,
    ) -> AsyncGenerator[tuple[str, Json], None]:
        """Yield the events of a streamed answer: `retrieval`, then `delta` and `citation`, at last `done`.

        Raises:
            ApiProblem: the event `error`, or a stream that ends without `done` (`answer_broken_off`).
        """
        given = _given(conversation_id=conversation_id, filter=filter, model=model)
        body = {"message": message, "stream": True} | given
        async with self._transport.stream("POST", "/v1/chat", json=body) as response:
            async for event in parse_events(response.aiter_bytes()):
                data: Json = json.loads(event.data)
                if event.name == "error":
                    raise problem_from(data)
                yield event.name, data
                if event.name == "done":
                    return
            request_id = response.headers.get("x-request-id", "")
        raise ApiProblem("answer_broken_off", 502, "The answer broke off.", request_id=request_id)

    def conversations(self) -> AsyncIterator[Json]:
        """Yield conversations, newest first."""
        return self._pages("/v1/conversations")

    async def conversation(self, conversation_id: str) -> Json:
        """Return a conversation with its last messages."""
        return await self._json("GET", _path("/v1/conversations", conversation_id))

    async def delete_conversation(self, conversation_id: str) -> None:
        """Delete a conversation."""
        await self._transport.send("DELETE", _path("/v1/conversations", conversation_id))

    # What the calls above are made of, for those in files of their own.

    async def call(self, method: str, path: str, **options: Any) -> Json:
        """Return the JSON of any call; `options` are httpx's."""
        return await self._json(method, path, **options)

    def pages(self, path: str) -> AsyncIterator[Json]:
        """Yield the items of any list."""
        return self._pages(path)

    async def _json(self, method: str, path: str, **options: Any) -> Json:
        return json_of(await self._transport.send(method, path, **options))

    async def _job_of(self, method: str, path: str, **options: Any) -> Json:
        job: Json = (await self._json(method, path, **options))["job"]
        return job

    async def _pages(self, path: str, wanted: Json | None = None, page: int = _PAGE) -> AsyncIterator[Json]:
        following: str | None = None
        while True:
            params = (wanted or {}) | {"limit": page} | _given(cursor=following)
            answer = await self._json("GET", path, params=params)
            for item in answer["items"]:
                yield item
            following = answer["next"]
            if following is None:
                return


def _outcome(item: Json) -> Uploaded | ApiProblem:
    if item["error"] is not None:
        return problem_from(item["error"])
    return Uploaded(item["document"], item["job"], item["new"])


def _media_type(filename: str) -> str:
    return mimetypes.guess_type(filename)[0] or "application/octet-stream"


def _given(**values: Any) -> Json:
    return {name: value for name, value in values.items() if value is not None}


def _path(first: str, *parts: str) -> str:
    return "/".join([first, *(quote(part, safe="") for part in parts)])


def _filename(disposition: str) -> str:
    """Return the name in a Content-Disposition (RFC 6266: `filename*` before `filename`), "" without one.

    Only its last part: whatever a server sends must not choose a folder here.
    """
    extended = re.search(r"filename\*=utf-8''([^;\s]+)", disposition, re.IGNORECASE)
    quoted = re.search(r'filename="([^"]*)"', disposition)
    name = unquote(extended[1]) if extended else quoted[1] if quoted else ""
    last = re.split(r"[/\\]", name)[-1]
    return "" if last in (".", "..") else last
