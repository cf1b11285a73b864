"""Editions: the chunks of a tenant by another embedding model or chunking, beside those that are read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

UNFINISHED = "state IN ('queued', 'running', 'retrying')"
ORDER = ("tenant_id", "document_id", "version", "position")


def upgrade() -> None:
    for table in ("chunks", "index_generations"):
        op.add_column(table, sa.Column("edition", sa.Integer(), server_default="1", nullable=False))
    op.add_column("index_generations", sa.Column("chunk_tokens", sa.Integer(), nullable=True))
    op.drop_index("chunks_order", "chunks")
    op.create_index("chunks_order", "chunks", [*ORDER[:-1], "edition", "position"])
    op.create_index(
        "jobs_one_reembed",
        "jobs",
        ["tenant_id", "kind"],
        unique=True,
        postgresql_where=sa.text(f"kind = 'reembed' AND {UNFINISHED}"),
    )


def downgrade() -> None:
    op.drop_index("jobs_one_reembed", "jobs")
    op.drop_index("chunks_order", "chunks")
    op.create_index("chunks_order", "chunks", list(ORDER))
    op.drop_column("index_generations", "chunk_tokens")
    for table in ("index_generations", "chunks"):
        op.drop_column(table, "edition")
