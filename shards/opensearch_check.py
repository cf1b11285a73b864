"""Whether an OpenSearch server is one that the lexical store can work on, said in words when it is not."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from opensearchpy import AsyncOpenSearch
from opensearchpy import exceptions as refused

from shards.opensearch_mapping import index_body
from shards.opensearch_query import owned
from shards.opensearch_server import OpenSearchServer, away
from shards.settings import LexicalSettings
from tenants.errors import Misconfigured

OLDEST = (2, 19)
"""The last release of OpenSearch 2, and the oldest that the suite of the stores runs on. Older ones get no fixes."""
_PRIVILEGES = "create_index, delete, manage aliases, read and write on {prefix}*, and cluster_composite_ops"


async def check(server: OpenSearchServer, settings: LexicalSettings) -> None:
    """Ask the server what it is, and do once all that the store does, in an index that is removed again.

    Raises:
        Misconfigured: it is reached, and is wrong for good; the settings are named.
        Unavailable: it does not answer.
    """
    client = await server.client()
    try:
        _require_version(await client.info(), settings)
        await _try(client, settings)
    except (refused.AuthenticationException, refused.AuthorizationException) as error:
        raise _refused(error, settings) from error
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
    made: list[str] = []
    try:
        for physical in (one, other):
            await client.indices.create(index=physical, body=index_body(shards=1, replicas=0))
            made.append(physical)
        added = [{"add": {"index": physical, "alias": f"{physical}-alias"}} for physical in made]
        await client.indices.update_aliases(body={"actions": added})
        await _use(client, one, f"{one}-alias", f"{other}-alias")
        await client.indices.get_alias(index=f"{settings.prefix}*")
        await client.cat.indices(index=f"{settings.prefix}*", params={"format": "json", "h": "index"})
    finally:
        for physical in made:
            await client.indices.delete(index=physical)


async def _use(client: AsyncOpenSearch, physical: str, alias: str, other: str) -> None:
    query, named = owned("check"), {"require_alias": "true", "refresh": "true"}
    entry = {"owner": "check", "chunk_id": "00", "version_no": 1, "heading": "one", "text": "one two"}
    lines: list[dict[str, Any]] = [{"index": {"_id": "check:00"}}, entry]
    await client.bulk(index=alias, body=lines, params=named)
    await client.search(index=alias, body={"query": query})
    await client.msearch(index=alias, body=[{}, {"query": query}])
    snapshot = await client.create_pit(index=alias, params={"keep_alive": "10s"})
    await client.delete_pit(body={"pit_id": [snapshot["pit_id"]]})
    await client.reindex(body={"source": {"index": physical, "query": query}, "dest": {"index": other}}, params=named)
    await client.indices.refresh(index=alias)
    await client.delete_by_query(index=alias, body={"query": query}, params={"conflicts": "proceed"})
    await client.indices.get_mapping(index=alias)


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
