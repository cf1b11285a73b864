"""Ended jobs are found by indexes of their own and forgotten after a while; what quotes a document is found by it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

UNFINISHED = "state IN ('queued', 'retrying', 'running')"
FORGOTTEN = "finished_at IS NOT NULL AND kind NOT IN ('delete', 'erase_tenant', 'fsck', 'retention')"
JOB_INDEXES = (
    ("jobs_unfinished", ["tenant_id", "created_at", "id"], UNFINISHED),
    ("jobs_errands", ["kind", "tenant_id"], f"kind <> 'ingest' AND {UNFINISHED}"),
    ("jobs_ended_badly", ["tenant_id", "created_at", "id"], "state IN ('failed', 'cancelled')"),
    ("jobs_failed_upkeep", ["tenant_id"], "kind = 'partition' AND state = 'failed'"),
    ("jobs_of_operators", ["id"], "kind IN ('erase_tenant', 'partition', 'reembed', 'fsck')"),
    ("jobs_ended", ["finished_at"], FORGOTTEN),
)
TENANT = "nullif(current_setting('app.tenant_id', true), '')::uuid"
QUOTES = ("message_citations", "answer_quotes")
READ = ("messages", "chunks", "documents", "idempotent_answers")
# Which version was cited was not written down. The chunk says it; when that is gone (its document was embedded anew, or
# replaced) it is the served one, if the document has not changed since. 0 is no version.
CITED = """
INSERT INTO message_citations (tenant_id, document_id, message_id, version)
SELECT m.tenant_id, (c ->> 'document_id')::uuid, m.id,
       coalesce(max(k.version), max(d.active_version) FILTER (WHERE d.updated_at <= m.created_at), 0)
FROM messages m
CROSS JOIN LATERAL jsonb_array_elements(
    CASE jsonb_typeof(m.answer -> 'citations') WHEN 'array' THEN m.answer -> 'citations' ELSE '[]' END) c
LEFT JOIN documents d ON d.tenant_id = m.tenant_id AND d.id = (c ->> 'document_id')::uuid
LEFT JOIN chunks k ON k.tenant_id = m.tenant_id AND k.id = (c ->> 'chunk_id')::uuid
GROUP BY 1, 2, 3
"""
QUOTED = """
INSERT INTO answer_quotes (tenant_id, document_id, route, key, version)
SELECT DISTINCT a.tenant_id, q[1]::uuid, a.route, a.key,
       CASE WHEN d.updated_at <= a.created_at THEN coalesce(d.active_version, 0) ELSE 0 END
FROM idempotent_answers a
CROSS JOIN LATERAL regexp_matches(a.body ->> 'text', '"document_id": ?"([0-9a-f-]{36})"', 'g') q
LEFT JOIN documents d ON d.tenant_id = a.tenant_id AND d.id = q[1]::uuid
WHERE a.route LIKE 'POST /v1/search?%' OR a.route LIKE 'POST /v1/chat?%'
"""
DISPATCHER = "current_setting('app.scope', true) = 'dispatcher'"


def upgrade() -> None:
    for name, columns, where in JOB_INDEXES:
        op.create_index(name, "jobs", columns, postgresql_where=sa.text(where))
    # What a receipt proves stays: the policy lets nobody forget it.
    op.execute(f"CREATE POLICY forgetting ON jobs FOR DELETE TO tessera_worker USING ({DISPATCHER} AND {FORGOTTEN})")
    _make_quotes("message_citations", "messages", {"message_id": "id"}, sa.Uuid())
    _make_quotes("answer_quotes", "idempotent_answers", {"route": "route", "key": "key"}, sa.Text())
    # Row-level security is forced on the owner too, who would see no row.
    for table in READ:
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    op.execute(CITED)
    op.execute(QUOTED)
    for table in READ:
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    for table in QUOTES:
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")


def downgrade() -> None:
    for table in QUOTES:
        op.drop_table(table)
    op.execute("DROP POLICY forgetting ON jobs")
    for name, _, _ in JOB_INDEXES:
        op.drop_index(name, "jobs")


def _make_quotes(name: str, owner: str, key: dict[str, str], kind: sa.types.TypeEngine[Any]) -> None:
    """Make a table that says which version of which documents the rows of another table quote; its rows go with
    theirs."""
    mine = ["tenant_id", *key]
    op.create_table(
        name,
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        *(sa.Column(column, kind, nullable=False) for column in key),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "document_id", *key),
        sa.ForeignKeyConstraint(
            mine, [f"{owner}.tenant_id", *(f"{owner}.{column}" for column in key.values())], ondelete="CASCADE"
        ),
    )
    op.create_index(f"{name}_owner", name, mine)
    op.execute(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO tessera_worker")
    op.execute(f"GRANT SELECT, INSERT, DELETE ON {name} TO tessera_app")
    op.execute(
        f"CREATE POLICY tenant_guard ON {name} TO tessera_app, tessera_worker"
        f" USING (tenant_id = {TENANT}) WITH CHECK (tenant_id = {TENANT})"
    )
