"""In which tier a tenant's vectors belong, and when they have to be moved or divided anew.

A small tenant shares a collection, because a collection of its own costs an engine memory and a thread however little
it holds; one that has grown gets its own, in which cells pay. The way back begins much further down, so that a tenant
at the border does not move to and fro. The operator may decide otherwise, but for one thing: a pool stays fast because
nobody in it is large.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from shards.catalog import Catalog
from shards.cells import cell_count
from shards.generation import NO_CELL, Generation
from shards.names import Space, Tier, bucket_of
from shards.settings import ShardSettings
from tenants.context import Placement

CHANGED = 0.3
"""Share of the micro-cells made anew since the training from which all are trained again."""
SCATTERED = 1.1
"""How much further rows may lie from their micro-cell's mean than they did after the training."""


@dataclass(frozen=True)
class Target:
    """What the next generation is to be."""

    tier: Tier
    endpoint: str
    cells: int
    why: str


def tier_for(choice: Placement, rows: int, settings: ShardSettings, now: Tier | None = None) -> Tier:
    """Return the tier of a tenant of so many rows that is in `now`."""
    if choice.tier in ("isolated", "dedicated"):
        return choice.tier
    if now not in (None, "pooled") and choice.tier == "auto":
        return "pooled" if rows < settings.pooled_rows * settings.demote_at else "dedicated"
    return "pooled" if rows < settings.pooled_rows else "dedicated"


def first_space(tenant_id: UUID, number: int, dim: int, choice: Placement, settings: ShardSettings) -> Space:
    """Return where a tenant's first rows go."""
    return space_of(tenant_id, number, dim, tier_for(choice, 0, settings), choice.endpoint, settings)


def space_of(tenant_id: UUID, number: int, dim: int, tier: Tier, endpoint: str, settings: ShardSettings) -> Space:
    """Return the space of a generation in a tier."""
    if tier == "pooled":
        return Space(tenant_id, number, dim, tier, bucket=bucket_of(tenant_id, settings.pool_buckets))
    return Space(tenant_id, number, dim, tier, endpoint=endpoint if tier == "isolated" else "")


async def servers_of(catalog: Catalog, choice: Placement) -> set[str]:
    """Return the servers, by the names of their endpoints, on which a tenant may have something: the main one, those of
    its generations in whatever state, and the one it is to be on."""
    headers = await catalog.generations("live", "building", "embedding", "retired", "gone")
    return {"", choice.endpoint} | {header.space.endpoint for header in headers}


def next_place(live: Space, choice: Placement) -> tuple[Tier, str]:
    """Return tier and server in which a next edition is begun: those that the operator names, else the live one's."""
    if choice.tier in ("isolated", "dedicated"):
        return choice.tier, choice.endpoint
    return live.tier, live.endpoint


def may_stay(begun: Space, live: Space, choice: Placement) -> bool:
    """Say whether a next edition may go on in the space in which it was begun: where it would be begun now, or beside
    the live one, which the upkeep moves after the switch. Nothing more of a tenant that is to be isolated goes into
    what it shares."""
    place = (begun.tier, begun.endpoint)
    return place == next_place(live, choice) or (choice.tier != "isolated" and place == (live.tier, live.endpoint))


def target(
    live: Generation, rows: int, choice: Placement, settings: ShardSettings, *, room: int, asked: int | None = None
) -> Target | None:
    """Return what the next generation should be, None while the live one is right.

    `room` is how many partitions the engine may still make, on the server that the choice names; `asked` is a number
    of cells that an operator wants, 0 for as many as are right.
    """
    now = live.space
    tier = tier_for(choice, rows, settings, now.tier)
    endpoint = choice.endpoint if tier == "isolated" else ""
    why = _reason(live, rows, tier, endpoint, settings) if asked is None else "asked"
    if why is None:
        return None
    if tier == "pooled":
        return None if now.tier == "pooled" else Target(tier, "", 1, why)
    cells = min(asked or cell_count(rows, settings), room - 1, max(rows, 1))
    if cells < 1 or (why == "size" and cells < 2):
        return None
    return Target(tier, endpoint, cells, why)


def _reason(live: Generation, rows: int, tier: Tier, endpoint: str, settings: ShardSettings) -> str | None:
    if (live.space.tier, live.space.endpoint) != (tier, endpoint):
        return "placement"
    if tier == "pooled":
        return None
    if live.routing is None:
        return "size" if cell_count(rows, settings) > 1 else None
    if rows >= live.header.trained_rows * settings.retrain_growth:
        return "growth"
    return "drift" if drifted(live) else None


def drifted(live: Generation) -> bool:
    """Say whether the micro-cells no longer fit what they hold: many were made anew one by one, or rows lie further
    from their means than after the training."""
    return made_anew(live) > CHANGED or (scatter(live) or 1.0) > SCATTERED


def made_anew(live: Generation) -> float:
    """Return how many micro-cells were made anew one by one since the training, as a share of those there are."""
    gone = int((live.micros.cell == NO_CELL).sum())
    return round(gone / max(len(live.micros.cell) - gone, 1), 4)


def scatter(live: Generation) -> float | None:
    """Return how far rows lie from their micro-cell's mean, in multiples of that after the training."""
    before = live.header.trained_residual
    return None if live.routing is None or not before else round(live.routing.residual / before, 4)
