"""What a migration does to a table that is in use: without a lock that anybody waits behind.

A release is updated in three steps, of which only the last takes something away (expand, backfill, contract):

1. expand: new tables, columns that may be empty or have a constant default, indexes made here, constraints NOT VALID.
   The code of before goes on with the new schema.
2. backfill: the new code fills what is missing, by jobs, in small transactions.
3. contract: a later release drops what nobody reads any more; its migration says in `NEEDS` which head the code must
   know.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op


def create_index(name: str, table: str, columns: Sequence[str], *, unique: bool = False, where: str = "") -> None:
    """Make an index beside the writers (CONCURRENTLY), however long it takes.

    What an attempt left that was broken off is dropped first. It is outside of any transaction: let nothing else be in
    the same migration.
    """
    with op.get_context().autocommit_block():
        op.execute("SET statement_timeout = 0")
        op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
        op.create_index(
            name,
            table,
            list(columns),
            unique=unique,
            postgresql_concurrently=True,
            postgresql_where=sa.text(where) if where else None,
        )


def drop_index(name: str, table: str) -> None:
    """Drop an index beside the readers and writers."""
    with op.get_context().autocommit_block():
        op.execute("SET statement_timeout = 0")
        op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
