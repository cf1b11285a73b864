"""Where the rows of a tenant's index lie, and the physical names that follow from it.

No name comes from a request: names are made from the tenant's id here, so whoever holds another tenant's name holds
nothing.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, get_args
from uuid import UUID

Tier = Literal["pooled", "dedicated", "isolated"]
TIERS: tuple[Tier, ...] = get_args(Tier)
INDEX = re.compile(r"t_[0-9a-f]{32}(_e[1-9][0-9]{0,8})?")
BUCKETS_A_COLLECTION = 64
"""Buckets of one shared collection. Writes to a collection take turns, so a pool is several."""


@dataclass(frozen=True)
class Space:
    """Where one generation of a tenant's vectors lies.

    `pooled`: in one bucket of a collection that tenants share; each row carries the tenant and the generation.
    `dedicated`: in a collection of its own. `isolated`: in a database of its own, on the server named by `endpoint`
    ('' is the one that all others use). Generations count from 1.

    Raises:
        ValueError: a tier, generation or bucket that there is not.
    """

    tenant_id: UUID
    generation: int
    dim: int
    tier: Tier = "dedicated"
    bucket: int = 0
    endpoint: str = ""

    def __post_init__(self) -> None:
        if self.tier not in TIERS:
            raise ValueError(f"tier {self.tier!r}, not one of {', '.join(TIERS)}")
        if self.generation < 1 or self.bucket < 0 or self.dim < 1:
            raise ValueError(f"generation {self.generation}, bucket {self.bucket}, dimension {self.dim}")

    @property
    def pooled(self) -> bool:
        """Say whether it shares its collection with other tenants."""
        return self.tier == "pooled"

    @property
    def database(self) -> str:
        """Return the name of its database, '' for the server's own."""
        return tenant_database(self.tenant_id) if self.tier == "isolated" else ""

    @property
    def collection(self) -> str:
        """Return the name of its collection."""
        if self.pooled:
            return f"pool_{self.dim}_{self.bucket // BUCKETS_A_COLLECTION}"
        return f"{collection_prefix(self.tenant_id)}{self.generation}"

    def partition(self, cell: int) -> str:
        """Return the name of the partition of a cell. In a pool a tenant has one cell, which it shares."""
        return f"b{self.bucket % BUCKETS_A_COLLECTION}" if self.pooled else f"c{cell}"

    def key(self, chunk_id: UUID, cell: int) -> str:
        """Return the primary key of a chunk in a cell."""
        if self.pooled:
            return f"{chunk_id.hex}:{self.tenant_id.hex}:{self.generation}"
        return f"{chunk_id.hex}:{cell}"

    def check_own(self) -> None:
        """Raise ValueError in a pool: the cells there are nobody's to change."""
        if self.pooled:
            raise ValueError(f"{self} is shared: its cells are nobody's to change")

    def __str__(self) -> str:
        """Return what an operator finds it by."""
        where = f"{self.endpoint}/{self.database}/".lstrip("/") if self.tier == "isolated" else ""
        return f"{where}{self.collection}" + (f"/{self.partition(0)}" if self.pooled else "")


def bucket_of(tenant_id: UUID, buckets: int) -> int:
    """Return the bucket of a tenant among so many."""
    return int.from_bytes(hashlib.sha256(tenant_id.bytes).digest()[:8], "big") % buckets


def tenant_database(tenant_id: UUID) -> str:
    """Return the name of a tenant's own database."""
    return f"t_{tenant_id.hex}"


def collection_prefix(tenant_id: UUID) -> str:
    """Return what the names of all of a tenant's own collections begin with."""
    return f"t_{tenant_id.hex}_g"


def tenant_of(name: str) -> UUID | None:
    """Return the tenant whose id a physical name begins with (`t_<hex>...`), None for other names."""
    digits = name[2:34]
    with suppress(ValueError):
        return UUID(hex=digits) if name.startswith("t_") and len(digits) == 32 else None
    return None


def lexical_name(tenant_id: UUID, edition: int = 1) -> str:
    """Return the name of a tenant's lexical index of one edition of its chunks."""
    return checked_index(f"t_{tenant_id.hex}" + (f"_e{edition}" if edition > 1 else ""))


def is_lexical_of(name: str, tenant_id: UUID) -> bool:
    """Say whether a lexical index is one of the tenant's."""
    return INDEX.fullmatch(name) is not None and name.startswith(f"t_{tenant_id.hex}")


def checked_index(name: str) -> str:
    """Return `name` when it is the name of a lexical index, else raise ValueError."""
    if INDEX.fullmatch(name) is None:
        raise ValueError(f"not an index name: {name!r}")
    return name
