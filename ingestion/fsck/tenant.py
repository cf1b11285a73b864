"""A check of one tenant: Postgres against itself, then every store against Postgres."""

from __future__ import annotations

from ingestion.fsck.check import Check
from ingestion.fsck.lexical import check_lexical
from ingestion.fsck.objects import check_objects
from ingestion.fsck.places import check_places
from ingestion.fsck.rows import Breaches, check_rows
from ingestion.fsck.vectors import check_vectors


async def examine(check: Check) -> Breaches:
    """Fill the check's report; with `repair`, remove what the stores have too much of. Nothing here commits.

    It may run while the tenant uploads, deletes and searches and while its index is moved: what it counts was looked
    at while nobody wrote. Returns what Postgres itself has to mend.
    """
    breaches = await check_rows(check)
    check.advance(0.2)
    await check_vectors(check)
    check.advance(0.5)
    await check_lexical(check)
    check.advance(0.75)
    await check_objects(check)
    await check_places(check)
    check.advance(1.0)
    return breaches
