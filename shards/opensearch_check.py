"""Whether an OpenSearch server is one that the lexical store can work on, said in words when it is not."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import uuid4

from opensearchpy import AsyncOpenSearch
from opensearchpy import exceptions as refused

from shards.opensearch_mapping import index_body
from shards.opensearch_query import owned
from shards.opensearch_server import OpenSearchServer, away, blocked
from shards.settings import LexicalSettings
from tenants.authority import check_authority
from tenants.errors import Misconfigured

OLDEST = (2, 19)
"""The last release of OpenSearch 2, and the oldest that the suite of the stores runs on. Older ones get no fixes."""
_PRIVILEGES = (
    "on {prefix}* the action groups read, write and manage (indices:admin/*, indices:monitor/*), and of the cluster "
    "cluster_composite_ops and cluster_monitor (cluster:monitor/*)"
)


async def check(server: OpenSearchServer, settings: LexicalSettings) -> None:
    """Ask the server what it is, and do once all that the store does, in an index that is removed again.

    Raises:
        Misconfigured: it is reached, and is wrong for good; the settings are named.
        Unavailable: it does not answer.
    """
    if settings.ca is not None:
        check_authority("TESSERA_LEXICAL_CA", settings.ca)
    client = await server.client()
    try:
        _require_version(await client.info(), settings)
        await _try(client, settings)
    except (refused.AuthenticationException, refused.AuthorizationException) as error:
        raise blocked(error.error) or _refused(error, settings) from error
    except refused.ConnectionError as error:
        if isinstance(error.info, ssl.SSLError):
            raise Misconfigured(
                f"The certificate of the server that TESSERA_LEXICAL_URL names is not one to trust: {error.info}. "
                "Set TESSERA_LEXICAL_CA to the file of the authority that signed it."
            ) from error
        raise away(f"OpenSearch at {settings.url} (TESSERA_LEXICAL_URL) does not answer.") from error
    except refused.RequestError as error:
        raise Misconfigured(
            f"OpenSearch at {settings.url} (TESSERA_LEXICAL_URL) refuses an index as Tessera needs it: {_said(error)}. "
            "It needs the modules that OpenSearch ships with: analysis-common, reindex and lang-painless."
        ) from error
    except (refused.TransportError, refused.SerializationError, AttributeError) as error:
        # The client trips over the body of an error that is not an object.
        status = getattr(error, "status_code", None)
        if status in (429, 502, 503, 504):
            raise away(f"OpenSearch at {settings.url} (TESSERA_LEXICAL_URL) has no room at the moment.") from error
        raise _not_opensearch(settings) from error


def _require_version(about: Mapping[str, Any], settings: LexicalSettings) -> None:
    version = about.get("version") if isinstance(about, Mapping) else None
    if not isinstance(version, Mapping) or version.get("distribution") != "opensearch":
        raise _not_opensearch(settings)
    number = str(version.get("number", ""))
    found = tuple(int(part) for part in re.findall(r"\d+", number)[:2])
    if found < OLDEST:
        oldest = ".".join(str(part) for part in OLDEST)
        raise Misconfigured(
            f"OpenSearch at {settings.url} (TESSERA_LEXICAL_URL) is {number}; Tessera needs {oldest} or newer."
        )


async def _try(client: AsyncOpenSearch, settings: LexicalSettings) -> None:
    """Do what the store does, so that a privilege that is missing shows now."""
    one, other = (f"{settings.prefix}check-{uuid4().hex[:8]}" for _ in range(2))
    body = index_body(shards=1, replicas=0)
    await client.indices.create(index=one, body=body)
    await client.indices.delete(index=one)  # at once: whoever may not delete leaves no more than this
    made: list[str] = []
    try:
        for physical in (one, other):
            await client.indices.create(index=physical, body=body)
            made.append(physical)
        added = [{"add": {"index": physical, "alias": f"{physical}-alias"}} for physical in made]
        await client.indices.update_aliases(body={"actions": added})
        await _use(client, settings.prefix, one, f"{other}-alias")
        await _rename(client, settings.prefix, one)
        await client.cat.indices(index=f"{settings.prefix}*", params={"format": "json", "h": "index"})
    finally:
        if made:
            await client.indices.delete(index=",".join(made))


async def _use(client: AsyncOpenSearch, prefix: str, physical: str, other: str) -> None:
    """Write, read, copy and remove one entry. An answer of status 200 may be a refusal in each of its parts."""
    query, named, alias = owned("check"), {"require_alias": "true", "refresh": "true"}, f"{physical}-alias"
    entry = {"owner": "check", "chunk_id": "00", "version_no": 1, "heading": "one", "text": "one two"}
    lines: list[dict[str, Any]] = [{"index": {"_id": "check:00"}}, entry]
    written = await client.bulk(index=alias, body=lines, params=named)
    _require_done(result for item in written["items"] for result in item.values())
    await client.search(index=alias, body={"query": query})
    _require_done((await client.msearch(index=alias, body=[{}, {"query": query}]))["responses"])
    snapshot = await client.create_pit(index=alias, params={"keep_alive": "10s"})
    await client.search(body={"query": query, "pit": {"id": snapshot["pit_id"]}})
    await client.delete_pit(body={"pit_id": [snapshot["pit_id"]]})
    source = {"index": physical, "query": query}
    copied = await client.reindex(body={"source": source, "dest": {"index": other}}, params=named)
    _require_one(copied, "total", "copy")
    places, there = f"{alias},{prefix}shared-*", {"ignore_unavailable": "true"}
    await client.indices.refresh(index=places, params=there)
    await client.count(index=places, body={"query": query}, params=there)
    removed = await client.delete_by_query(
        index=places, body={"query": query}, params={**there, "conflicts": "proceed"}
    )
    _require_one(removed, "deleted", "remove")
    await client.indices.get_mapping(index=alias)


async def _rename(client: AsyncOpenSearch, prefix: str, physical: str) -> None:
    about = {"filter": {"term": {"owner": "check"}}, "routing": "check"}
    await client.indices.put_alias(index=physical, name=f"{physical}-building", body=about)
    await client.indices.get_alias(index=f"{prefix}*", name=f"{physical}-*")
    await client.indices.delete_alias(index=f"{prefix}*", name=f"{physical}-*")


def _require_one(answer: Mapping[str, Any], count: str, doing: str) -> None:
    """Raise what kept a copy or removal from the one entry that there is."""
    _require_done({"error": one.get("cause"), "status": one.get("status")} for one in answer.get("failures", ()))
    if answer.get(count) != 1:
        reason = f"it does not {doing} an entry that was just written"
        raise refused.RequestError(400, reason, {"error": {"type": "", "reason": reason}})


def _require_done(results: Iterable[Mapping[str, Any]]) -> None:
    """Raise what a part of an answer is refused with, as if it had been asked alone."""
    for result in results:
        if result.get("error") is not None:
            status, error = int(result.get("status") or 500), result["error"]
            kind = refused.HTTP_EXCEPTIONS.get(status, refused.TransportError)
            raise kind(status, error.get("type", ""), {"error": error})


def _refused(error: refused.TransportError, settings: LexicalSettings) -> Misconfigured:
    if isinstance(error, refused.AuthenticationException):
        given = f"the user {settings.user!r}" if settings.user else "a request without a user"
        return Misconfigured(
            f"OpenSearch at {settings.url} refuses {given}: set TESSERA_LEXICAL_USER and TESSERA_LEXICAL_PASSWORD."
        )
    needed = _PRIVILEGES.format(prefix=settings.prefix)
    return Misconfigured(
        f"OpenSearch at {settings.url} does not let TESSERA_LEXICAL_USER {settings.user!r} do what Tessera does: "
        f"{_said(error)}. Give it {needed}."
    )


def _not_opensearch(settings: LexicalSettings) -> Misconfigured:
    return Misconfigured(
        f"What answers at {settings.url} (TESSERA_LEXICAL_URL) is not OpenSearch. Elasticsearch will not do, "
        "nor will an OpenSearch that pretends to be one (compatibility.override_main_response_version)."
    )


def _said(error: refused.TransportError) -> str:
    """Return the server's own reason."""
    info = error.info
    cause = info.get("error") if isinstance(info, Mapping) else None
    reason = cause.get("reason") if isinstance(cause, Mapping) else cause
    return str(reason or error.error or f"status {error.status_code}").rstrip(".")
