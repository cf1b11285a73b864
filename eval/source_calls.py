"""The calls of sources, for `TesseraClient`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

from eval.client import TesseraClient
from eval.transport import Json


class SourceCalls:
    """A tenant's sources, over a client with its key; raises as `TesseraClient` does."""

    def __init__(self, client: TesseraClient) -> None:
        self._client = client

    async def register(self, kind: str, name: str, config: Mapping[str, Any], **fields: Any) -> Json:
        """Return a source that was registered now."""
        body = {"kind": kind, "name": name, "config": config} | _given(fields)
        return await self._client.call("POST", "/v1/sources", json=body)

    def all(self) -> AsyncIterator[Json]:
        """Yield the sources, newest first."""
        return self._client.pages("/v1/sources")

    async def get(self, source_id: str) -> Json:
        """Return a source with its last run."""
        return await self._client.call("GET", _path(source_id))

    async def change(self, source_id: str, **fields: Any) -> Json:
        """Return a source after a change."""
        return await self._client.call("PATCH", _path(source_id), json=fields)

    async def set_state(self, source_id: str, verb: str) -> Json:
        """Return a source after `pause` or `resume`."""
        return await self._client.call("POST", f"{_path(source_id)}/{verb}")

    async def remove(self, source_id: str, *, documents: str) -> Json:
        """Remove a source; its documents are kept (`keep`) or deleted (`delete`)."""
        return await self._client.call("DELETE", _path(source_id), params={"documents": documents})

    async def begin(self, source_id: str, verb: str) -> Json:
        """Return the job of a `run` or a `preview`."""
        job: Json = (await self._client.call("POST", f"{_path(source_id)}/{verb}"))["job"]
        return job

    def runs(self, source_id: str) -> AsyncIterator[Json]:
        """Yield the runs of a source, newest first."""
        return self._client.pages(f"{_path(source_id)}/runs")


def _given(fields: Mapping[str, Any]) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def _path(source_id: str) -> str:
    return f"/v1/sources/{quote(source_id, safe='')}"
