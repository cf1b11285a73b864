"""One tenant's client: it sends what the load asks for and writes down what it was told and shown."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

from tests.faults.history import WORD, Change, History, Rest, Sight, paragraphs, question_of, text_of

LOST = "worker_lost"
"""Code of a job whose worker was lost as often as a job may be tried."""
_PATIENCE = 10
_PAUSE_S = 0.5
_EXCUSED = (404, 409, 429, 503)
"""Answers that a fault, a deletion or a repeat explains."""
_LIMITS = httpx.Timeout(20.0, connect=2.0)


@dataclass(frozen=True)
class Answer:
    """What a request was answered; status 0 when the connection failed."""

    status: int
    body: Any
    brief: str


@dataclass
class Client:
    """Requests of one tenant. `noticed` is told of moments: acknowledged, deleted, a job's states and stages."""

    tenant: str
    http: httpx.AsyncClient
    history: History
    noticed: Callable[[str], None] = lambda moment: None
    watched: set[asyncio.Task[None]] = field(default_factory=set)

    @classmethod
    def of(cls, url: str, slug: str, key: str, history: History, noticed: Callable[[str], None]) -> Client:
        """Return the client of a tenant's key."""
        headers = {"Authorization": f"Bearer {key}"}
        return cls(slug, httpx.AsyncClient(base_url=url, headers=headers, timeout=_LIMITS), history, noticed)

    async def aclose(self) -> None:
        """Stop watching jobs and close the connections."""
        for task in self.watched:
            task.cancel()
        await asyncio.gather(*self.watched, return_exceptions=True)
        await self.http.aclose()

    async def ask(self, method: str, path: str, **parts: Any) -> Answer:
        """Send a request; an answer that no fault excuses is noted as an oddity."""
        try:
            answer = await self.http.request(method, path, **parts)
        except httpx.HTTPError as error:
            self.history.answers[type(error).__name__] += 1
            await asyncio.sleep(0.1)
            return Answer(0, None, type(error).__name__)
        kind = answer.headers.get("content-type", "")
        body = answer.json() if kind.endswith("json") else answer.text
        code = body.get("code", "") if isinstance(body, dict) and answer.status_code >= 400 else ""
        brief = f"{answer.status_code} {code}".strip()
        self.history.answers[f"{method} {brief}"] += 1
        if answer.status_code == 500 or (answer.status_code >= 400 and kind != "application/problem+json"):
            self.history.oddities.append(f"{method} {path} was answered {brief} ({kind}): {answer.text[:300]}")
        return Answer(answer.status_code, body, brief)

    async def upload(self, changes: Sequence[Change], *, insist: bool) -> None:
        """Upload one document or several in one request; when the outcome is unclear, `insist` by repeating the request
        under its Idempotency-Key."""
        headers = {"Idempotency-Key": str(uuid4())}
        texts = [text_of(change.word, change.parts).encode() for change in changes]
        if len(changes) == 1:
            parts: dict[str, Any] = {
                "files": {"file": (f"{changes[0].name}.txt", texts[0])},
                "data": {"external_id": changes[0].name},
            }
            path = "/v1/documents"
        else:
            items = json.dumps([{"external_id": change.name} for change in changes])
            files = [("file", (f"{c.name}.txt", text)) for c, text in zip(changes, texts, strict=True)]
            parts, path = {"files": files, "data": {"items": items}}, "/v1/documents/bulk"
        first = answer = await self.ask("POST", path, headers=headers, **parts)
        for _ in range(_PATIENCE if insist else 0):
            if answer.status in (200, 202) or (answer is first and answer.status == 429):
                break
            await asyncio.sleep(_PAUSE_S)
            answer = await self.ask("POST", path, headers=headers, **parts)
        if answer.status not in (200, 202):
            for change in changes:
                change.end("refused" if first.status == answer.status == 429 else "unknown", answer.brief)
            return
        for change, item in zip(changes, [answer.body] if len(changes) == 1 else answer.body["items"], strict=True):
            self._taken(change, item, answer.brief)
        self.noticed("acknowledged")

    async def delete(self, change: Change, *, insist: bool) -> None:
        """Delete a document; 404 after an unclear first answer says that the first one did it."""
        first = await self.ask("DELETE", f"/v1/documents/{change.document_id}")
        answer = first
        for _ in range(_PATIENCE if insist else 0):
            if answer.status in (202, 404):
                break
            await asyncio.sleep(_PAUSE_S)
            answer = await self.ask("DELETE", f"/v1/documents/{change.document_id}")
        if answer.status == 202:
            change.job_id = answer.body["job"]["id"]
        if answer.status == 202 or (answer.status == 404 and answer is not first):
            change.end("acknowledged", answer.brief)
            self.watch(change)
            self.noticed("deleted")
            return
        change.end("refused" if 400 <= answer.status < 500 else "unknown", answer.brief)

    def watch(self, change: Change) -> None:
        """Follow a change's job in the background."""
        task = asyncio.create_task(self._follow(change))
        self.watched.add(task)
        task.add_done_callback(self.watched.discard)

    async def search(self, word: str, *, k: int = 10) -> Sight:
        """Search for a version's word."""
        began = time.monotonic()
        answer = await self.ask("POST", "/v1/search", json={"query": question_of(word), "k": k})
        hits = answer.body["hits"] if answer.status == 200 else []
        words = [found for hit in hits for found in sorted(set(WORD.findall(hit["text"])))]
        degraded = tuple(answer.body["degraded"]) if answer.status == 200 else ()
        keys = tuple(hit["chunk_id"] for hit in hits)
        return self._saw("search", word, began, answer.status, words, keys, degraded)

    async def chat(self, word: str) -> Sight:
        """Ask the answerer about a version's word."""
        began = time.monotonic()
        body = {"message": f"What do the notes say on {question_of(word)}?", "stream": False}
        answer = await self.ask("POST", "/v1/chat", json=body)
        shown = {**answer.body, "message": ""} if answer.status == 200 else {}
        # The answerer may quote the question; a citation can only come from a document.
        words = WORD.findall(json.dumps(shown.get("citations", [])))
        return self._saw("chat", word, began, answer.status, sorted(set(words)))

    async def read(self, change: Change, *, content: bool) -> Sight:
        """Read a document's original or its chunks."""
        kind = "content" if content else "chunks"
        began = time.monotonic()
        answer = await self.ask("GET", f"/v1/documents/{change.document_id}/{kind}")
        text = answer.body if content else json.dumps(answer.body)
        words = sorted(set(WORD.findall(text))) if answer.status == 200 else []
        return self._saw("content" if content else "chunks", change.document_id, began, answer.status, words)

    async def listed(self) -> list[dict[str, Any]]:
        """Return all documents of the list, newest first; each page is noted as a sight."""
        return await self._all("/v1/documents", note=True)

    async def jobs(self, state: str) -> list[dict[str, Any]]:
        """Return the jobs in a state."""
        return await self._all(f"/v1/jobs?state={state}")

    async def retry_lost(self) -> int:
        """Have those jobs tried again that lost their worker three times, as their owner would; return how many."""
        answer = await self._must("POST", "/v1/jobs/retry", json={"code": LOST})
        retried: int = answer.body["retried"]
        return retried

    async def at_rest(self, names: Sequence[str]) -> dict[tuple[str, str], Rest]:
        """Look at documents when nothing is under way: the list, a search for each version's word, the chunks."""
        ids: dict[str, list[str]] = {}
        for document in await self.listed():
            ids.setdefault(document["external_id"] or "", []).append(document["id"])
        return {(self.tenant, name): await self._rest(name, tuple(ids.get(name, ()))) for name in names}

    async def _rest(self, name: str, listed: tuple[str, ...]) -> Rest:
        found = {}
        for change in self.history.changes[self.tenant, name]:
            if change.word:
                body = (await self._must("POST", "/v1/search", json={"query": question_of(change.word), "k": 50})).body
                assert body["degraded"] == [], body["degraded"]
                found[change.word] = tuple(hit["chunk_id"] for hit in body["hits"] if change.word in hit["text"])
        chunks = await self._all(f"/v1/documents/{listed[0]}/chunks?limit=100") if listed else []
        told = tuple(paragraph for chunk in chunks for paragraph in paragraphs(chunk["text"]))
        return Rest(listed, found, tuple(chunk["position"] for chunk in chunks), told)

    async def _all(self, path: str, *, note: bool = False) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        following: str | None = ""
        while following is not None:
            cursor = {"cursor": following} if following else {}
            began = time.monotonic()
            page = (await self._must("GET", str(httpx.URL(path).copy_merge_params({"limit": "100", **cursor})))).body
            if note:
                self._saw("list", "", began, 200, (), tuple(item["id"] for item in page["items"]))
            items += page["items"]
            following = page["next"]
        return items

    async def glance(self) -> None:
        """Look at the first page of the list, whatever it is answered."""
        began = time.monotonic()
        answer = await self.ask("GET", "/v1/documents?limit=100")
        keys = tuple(item["id"] for item in answer.body["items"]) if answer.status == 200 else ()
        self._saw("list", "", began, answer.status, (), keys)

    async def _must(self, method: str, path: str, **parts: Any) -> Answer:
        """Ask until it is answered; nothing is away for long."""
        for _ in range(60):
            answer = await self.ask(method, path, **parts)
            if answer.status == 200:
                return answer
            await asyncio.sleep(_PAUSE_S)
        raise AssertionError(f"{method} {path} is still answered {answer.brief}")

    def _taken(self, change: Change, item: dict[str, Any], brief: str) -> None:
        if item.get("error"):
            change.end("unknown", f"{brief}: {item['error']}")
            return
        change.document_id, change.version = item["document"]["id"], item["document"]["version"]
        change.job_id = (item["job"] or {}).get("id", "")
        change.end("acknowledged", brief)
        self.watch(change)

    async def _follow(self, change: Change) -> None:
        seen: set[str] = set()
        began = time.monotonic()
        while change.job_id:
            answer = await self.ask("GET", f"/v1/jobs/{change.job_id}")
            job = answer.body if answer.status == 200 else {}
            now = {f"{job['kind']} {job['state']}", job["stage"] or ""} if job else set()
            for moment in now - seen:
                self.noticed(moment)
            seen |= now
            if change.kind == "put" and job.get("state") == "done" and not (job["result"] or {}).get("superseded"):
                change.searchable = time.monotonic()
            if job.get("state") in ("done", "failed", "cancelled"):
                return
            await asyncio.sleep(0.02 if time.monotonic() - began < 1 else 0.15)

    def _saw(
        self,
        kind: Any,
        asked: str,
        began: float,
        status: int,
        words: Sequence[str] = (),
        keys: tuple[str, ...] = (),
        degraded: tuple[str, ...] = (),
    ) -> Sight:
        sight = Sight(self.tenant, kind, asked, began, time.monotonic(), status, tuple(words), keys, degraded)
        self.history.sights.append(sight)
        return sight
