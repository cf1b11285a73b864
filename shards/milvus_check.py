"""Whether Milvus servers can be used as the settings say: reached, new enough, with the privileges that are needed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import grpc  # type: ignore[import-untyped]
from pymilvus import AsyncMilvusClient, MilvusException
from pymilvus.grpc_gen import milvus_pb2 as messages

from shards.milvus_clients import MilvusClients
from shards.milvus_errors import Refused
from shards.settings import MilvusServer, MilvusSettings, is_server
from tenants.authority import check_authority
from tenants.errors import Misconfigured, Unavailable
from tenants.urls import without_secrets

OLDEST = (2, 3)
"""2.3 is the first Milvus whose clock a client can read: without it nobody knows which writes a search has seen."""
_VERSION = re.compile(r"v?(\d+)\.(\d+)")
_NOWHERE = "tessera_is_not_there"
_OF_COLLECTION = {"collection_name": _NOWHERE}
_OF_PARTITION = {**_OF_COLLECTION, "partition_name": _NOWHERE}
PRIVILEGES: dict[str, Any] = {
    "CreateCollection": messages.CreateCollectionRequest(**_OF_COLLECTION),
    "DropCollection": messages.DropCollectionRequest(**_OF_COLLECTION),
    "DescribeCollection": messages.DescribeCollectionRequest(**_OF_COLLECTION),
    "ShowCollections": messages.ShowCollectionsRequest(),
    "CreatePartition": messages.CreatePartitionRequest(**_OF_PARTITION),
    "DropPartition": messages.DropPartitionRequest(**_OF_PARTITION),
    "ShowPartitions": messages.ShowPartitionsRequest(**_OF_COLLECTION),
    "CreateIndex": messages.CreateIndexRequest(**_OF_COLLECTION, field_name="vector"),
    "IndexDetail": messages.DescribeIndexRequest(**_OF_COLLECTION),
    "Load": messages.LoadCollectionRequest(**_OF_COLLECTION),
    "GetLoadingProgress": messages.GetLoadingProgressRequest(**_OF_COLLECTION),
    "Release": messages.ReleaseCollectionRequest(**_OF_COLLECTION),
    "Upsert": messages.UpsertRequest(**_OF_COLLECTION),
    "Delete": messages.DeleteRequest(**_OF_COLLECTION, expr="version_no == 0"),
    "Query": messages.QueryRequest(**_OF_COLLECTION),
    "Search": messages.SearchRequest(**_OF_COLLECTION),
}
"""What the service must be allowed, and a request for each that does nothing, since what it names is not there."""
OF_DATABASES: dict[str, Any] = {
    "ListDatabases": messages.ListDatabasesRequest(),
    "CreateDatabase": messages.CreateDatabaseRequest(db_name="?"),
    "DropDatabase": messages.DropDatabaseRequest(db_name=_NOWHERE),
}
"""The same for databases of isolated tenants."""
_ELSEWHERE = (("dbname", _NOWHERE),)
"""What a request says of its database. The server looks for the privilege before it looks for the database."""
_NO_ANSWER = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAUTHENTICATED,
)
_CALLS = {"IndexDetail": "DescribeIndex", "Load": "LoadCollection", "Release": "ReleaseCollection"}
"""The calls that are not named as their privilege."""


async def check_servers(clients: MilvusClients, settings: MilvusSettings) -> None:
    """Return when every server can be used. Raises as `VectorStore.check` does: of several faults one that an operator
    has to mend."""
    away: Unavailable | None = None
    for endpoint in clients.endpoints:
        server = settings.endpoints[endpoint] if endpoint else settings
        name = f"the Milvus server {endpoint!r} of TESSERA_MILVUS_ENDPOINTS" if endpoint else "the Milvus server"
        check_form(name, server)
        try:
            await _check_version(clients, endpoint, name)
            await _check_privileges(clients, endpoint, name, databases=server.databases > 0)
        except Refused as refused:
            raise Misconfigured(f"{_at(name, server)} cannot be used: {refused.why}") from refused
        except Unavailable as error:
            away = away or _away(name, endpoint, server, error)
    if away is not None:
        raise away


async def lacking_privileges(clients: MilvusClients) -> list[str]:
    """Return what of `PRIVILEGES` and `OF_DATABASES` the main server denies its user, in whichever database.

    Raises:
        Refused: the login.
        Unavailable: the server does not answer.
    """
    lacking = await _lacking(clients, "", (*PRIVILEGES, *OF_DATABASES))
    return lacking or await _lacking(clients, "", PRIVILEGES, _ELSEWHERE)


def check_form(name: str, server: MilvusServer) -> None:
    """Look at the settings of a server, which `name` names. Raises `Misconfigured` when they cannot be right."""
    if not is_server(server.uri):
        raise Misconfigured(
            f"The URI of {name} is {without_secrets(server.uri)!r}, not http://host:port or https://host:port"
            " (TESSERA_MILVUS_URI); user and password belong into TESSERA_MILVUS_TOKEN."
        )
    files = {"CA": server.ca, "CLIENT_CERT": server.client_cert, "CLIENT_KEY": server.client_key}
    for setting, path in files.items():
        if path is not None and not path.is_file():
            raise Misconfigured(f"TESSERA_MILVUS_{setting} of {name} names {path}, which is not a file.")
    if server.ca is not None:
        check_authority(f"TESSERA_MILVUS_CA of {name}", server.ca)
    if server.client_cert is not None and (server.client_key is None or server.ca is None):
        raise Misconfigured(
            f"TESSERA_MILVUS_CLIENT_CERT of {name} needs TESSERA_MILVUS_CLIENT_KEY and TESSERA_MILVUS_CA beside it."
        )


def _away(name: str, endpoint: str, server: MilvusServer, error: Unavailable) -> Unavailable:
    setting = f"the `uri` of {endpoint!r} in TESSERA_MILVUS_ENDPOINTS" if endpoint else "TESSERA_MILVUS_URI"
    return Unavailable(f"{_at(name, server)} does not answer. Start it, or correct {setting}.", code=error.code)


def _at(name: str, server: MilvusServer) -> str:
    return f"{name[0].upper()}{name[1:]} at {without_secrets(server.uri)}"


async def _check_version(clients: MilvusClients, endpoint: str, name: str) -> None:
    await clients.now((endpoint, ""))
    server = clients.server(endpoint)
    assert server is not None
    found = _VERSION.match(server.version)  # a build of one's own may say anything
    if not server.lite and found and (int(found[1]), int(found[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise Misconfigured(
            f"{name[0].upper()}{name[1:]} is Milvus {server.version}; the oldest that serves is {oldest}."
        )


async def _check_privileges(clients: MilvusClients, endpoint: str, name: str, *, databases: bool) -> None:
    server = clients.server(endpoint)
    if server is None or server.lite:
        return
    lacking = await _lacking(clients, endpoint, PRIVILEGES)
    if lacking:
        raise Misconfigured(
            f"The user of {name} (TESSERA_MILVUS_TOKEN) lacks the privileges {', '.join(lacking)}: grant them to its"
            " role, see docs/milvus.md."
        )
    if not databases:
        return
    lacking = await _lacking(clients, endpoint, OF_DATABASES)
    lacking = lacking or await _lacking(clients, endpoint, PRIVILEGES, _ELSEWHERE)
    if lacking:
        raise Misconfigured(
            f"The user of {name} (TESSERA_MILVUS_TOKEN) lacks the privileges {', '.join(lacking)}: grant them for every"
            " database (`*`), see docs/milvus.md, or set TESSERA_MILVUS_DATABASES to 0 if no tenant is to have a"
            " database of its own there."
        )


async def _lacking(
    clients: MilvusClients, endpoint: str, wanted: Iterable[str], about: tuple[tuple[str, str], ...] = ()
) -> list[str]:
    return [privilege for privilege in wanted if not await _may(clients, endpoint, privilege, about)]


async def _may(clients: MilvusClients, endpoint: str, privilege: str, about: tuple[tuple[str, str], ...]) -> bool:
    """Say whether the server answers a request that does nothing, be it with an error, or refuses to hear it."""
    request = PRIVILEGES.get(privilege) or OF_DATABASES[privilege]

    async def ask(client: AsyncMilvusClient) -> bool:
        handler = await client._get_connection()
        try:
            await getattr(handler._async_stub, _CALLS.get(privilege, privilege))(request, metadata=about)
        except grpc.RpcError as error:
            if error.code() in _NO_ANSWER:
                raise
            return bool(error.code() != grpc.StatusCode.PERMISSION_DENIED)
        except MilvusException:
            return True
        return True

    return await clients.call((endpoint, ""), ask)
