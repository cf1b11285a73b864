"""What the engines hold and how much more they may: partitions and databases by server, tenants by tier.

Everything is counted from Postgres, in a session that sees the indexes of all tenants (scope admin or dispatcher) and
nothing of their content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shards.catalog import Header
from shards.names import BUCKETS_A_COLLECTION
from shards.vectors import Budget
from tenants.context import Placement
from tenants.errors import FieldError, InvalidRequest, NoRoom

# Each collection has one partition more than cells: Milvus's own.
_TAKEN = text(
    "SELECT endpoint, coalesce(sum(cells + 1) FILTER (WHERE tier <> 'pooled'), 0)"
    " + count(DISTINCT (dim, bucket)) FILTER (WHERE tier = 'pooled')"
    " + count(DISTINCT (dim, bucket / :buckets)) FILTER (WHERE tier = 'pooled') AS partitions"
    " FROM index_generations WHERE state <> 'gone' GROUP BY endpoint"
)
# Tenants whose collection is promised and not there yet, and databases, by the server that was chosen.
_PROMISED = text(
    "SELECT t.endpoint, 2 * count(*) FILTER (WHERE NOT EXISTS"
    " (SELECT FROM index_generations g WHERE g.tenant_id = t.id)) AS partitions,"
    " count(*) FILTER (WHERE t.placement = 'isolated') AS databases"
    " FROM tenants t WHERE t.placement IN ('dedicated', 'isolated') GROUP BY t.endpoint"
)
_BUCKETS = {"buckets": BUCKETS_A_COLLECTION}


@dataclass(frozen=True)
class Room:
    """Partitions taken or promised on a server, of so many that it may hold, and databases of tenants likewise."""

    endpoint: str
    partitions: int
    budget: int
    databases: int
    most_databases: int

    @property
    def free(self) -> int:
        """Return how many partitions may still be made."""
        return max(0, self.budget - self.partitions)


async def rooms(session: AsyncSession, budgets: Mapping[str, Budget]) -> dict[str, Room]:
    """Return the room on each server, by its endpoint."""
    taken = {row.endpoint: int(row.partitions) for row in await session.execute(_TAKEN, _BUCKETS)}
    promised = {row.endpoint: row for row in await session.execute(_PROMISED)}
    found = {}
    for endpoint, budget in budgets.items():
        more = promised.get(endpoint)
        partitions = taken.get(endpoint, 0) + (int(more.partitions) if more else 0)
        databases = int(more.databases) if more else 0
        found[endpoint] = Room(endpoint, partitions, budget.partitions, databases, budget.databases)
    return found


async def require_room(session: AsyncSession, budgets: Mapping[str, Budget], placement: Placement) -> None:
    """Check, in the transaction that makes or moves a tenant, that there is room for it once it is written.

    Raises:
        InvalidRequest: there is no such server.
        NoRoom: its partitions or databases are spent.
    """
    known = ", ".join(repr(name) for name in budgets if name) or "none"
    if placement.endpoint not in budgets:
        detail = f"There is no Milvus server {placement.endpoint!r}; TESSERA_MILVUS_ENDPOINTS names: {known}."
        raise InvalidRequest(detail, fields=(FieldError("body.placement.endpoint", detail),))
    room = (await rooms(session, budgets))[placement.endpoint]
    server = f"the Milvus server {placement.endpoint!r}" if placement.endpoint else "the Milvus server"
    if placement.tier == "isolated" and room.databases > room.most_databases:
        taken = f"All {room.most_databases} databases of {server} are taken."
        none = f"{server[0].upper()}{server[1:]} has no databases to give (TESSERA_MILVUS_DATABASES)."
        raise NoRoom(
            f"{taken if room.most_databases else none} Isolate the tenant on another server"
            " (TESSERA_MILVUS_ENDPOINTS), or make it dedicated."
        )
    # What is dedicated or isolated was counted as promised; one in the pool may fill a bucket, or grow out of it.
    if room.partitions + int(placement.tier in ("auto", "pooled")) > room.budget:
        raise NoRoom(
            f"The partitions of {server} are spent: {room.partitions:,} of {room.budget:,}. Raise"
            " TESSERA_MILVUS_PARTITION_BUDGET as far as its memory allows, isolate tenants on another server"
            " (TESSERA_MILVUS_ENDPOINTS), or move or delete those that take most: `tessera shards` lists them."
        )


async def require_partitions(session: AsyncSession, budgets: Mapping[str, Budget], live: Header | None) -> None:
    """Check that there is room for another generation, of one cell, beside a tenant's live one.

    Raises:
        NoRoom: the partitions of its server are spent.
    """
    pooled = live is None or live.space.pooled
    endpoint = "" if live is None else live.space.endpoint
    room = (await rooms(session, budgets)).get(endpoint)
    needed = 1 if pooled else 2
    if room is None or room.free < needed:
        raise NoRoom(
            "There is no room for another generation of the index beside the live one: the partitions of its server are"
            " spent (`tessera shards`)."
        )
