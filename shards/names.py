"""Physical names of a tenant's indexes, made from its id alone and checked wherever they are used.

No name comes from a request: whoever holds another tenant's name holds nothing, because every store refuses a name
that this module did not make.
"""

from __future__ import annotations

import re
from uuid import UUID

COLLECTION = re.compile(r"t_[0-9a-f]{32}_g[1-9][0-9]{0,8}")
INDEX = re.compile(r"t_[0-9a-f]{32}")


def collection_prefix(tenant_id: UUID) -> str:
    """Return what the names of all vector collections of a tenant begin with."""
    return f"t_{tenant_id.hex}_g"


def collection_name(tenant_id: UUID, generation: int) -> str:
    """Return the name of one generation's vector collection. Generations count from 1."""
    return checked_collection(f"{collection_prefix(tenant_id)}{generation}")


def lexical_name(tenant_id: UUID) -> str:
    """Return the name of a tenant's lexical index."""
    return checked_index(f"t_{tenant_id.hex}")


def checked_collection(name: str) -> str:
    """Return `name` when it is the name of a vector collection, else raise ValueError."""
    if COLLECTION.fullmatch(name) is None:
        raise ValueError(f"not a collection name: {name!r}")
    return name


def checked_index(name: str) -> str:
    """Return `name` when it is the name of a lexical index, else raise ValueError."""
    if INDEX.fullmatch(name) is None:
        raise ValueError(f"not an index name: {name!r}")
    return name
