"""Sources: what tenants registered, the entries found in them, their runs, and when they are due."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TENANT = "nullif(current_setting('app.tenant_id', true), '')::uuid"
SCOPE = "current_setting('app.scope', true)"
APP_GRANTS = {
    "sources": "SELECT, INSERT, UPDATE, DELETE",
    "source_clocks": "SELECT, INSERT, UPDATE, DELETE",
    "source_entries": "SELECT, DELETE",
    "source_runs": "SELECT, INSERT, UPDATE, DELETE",
}
NARROW_SCOPES = (
    ("source_clocks", "schedule_read", "tessera_worker", f"{SCOPE} = 'dispatcher'"),
    ("source_clocks", "operator_read", "tessera_app", f"{SCOPE} = 'admin'"),
)


def upgrade() -> None:
    op.create_table(
        "sources",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("config", postgresql.JSONB(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("cron", sa.Text(), nullable=True),
        sa.Column("timezone", sa.Text(), nullable=True),
        sa.Column("on_vanish", sa.Text(), nullable=False),
        sa.Column("misses", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("cursor", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        _now("created_at"),
        _now("updated_at"),
        sa.PrimaryKeyConstraint("tenant_id", "id"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"]),
    )
    op.create_index("sources_name", "sources", ["tenant_id", "name"], unique=True)
    op.create_index("sources_listing", "sources", ["tenant_id", "created_at", "id"])
    op.create_table(
        "source_clocks",
        *_of_source(),
        sa.Column("next_run_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_success_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("runs_done", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("runs_failed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "source_id"),
    )
    due = sa.text("next_run_at IS NOT NULL")
    op.create_index("source_clocks_due", "source_clocks", ["next_run_at"], postgresql_where=due)
    _create_entries()
    _create_runs()
    for table, privileges in APP_GRANTS.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO tessera_worker")
        op.execute(f"GRANT {privileges} ON {table} TO tessera_app")
        op.execute(
            f"CREATE POLICY tenant_guard ON {table} TO tessera_app, tessera_worker"
            f" USING (tenant_id = {TENANT}) WITH CHECK (tenant_id = {TENANT})"
        )
    for table, name, role, condition in NARROW_SCOPES:
        op.execute(f"CREATE POLICY {name} ON {table} FOR SELECT TO {role} USING ({condition})")


def downgrade() -> None:
    for table in ("source_runs", "source_entries", "source_clocks", "sources"):
        op.drop_table(table)


def _create_entries() -> None:
    op.create_table(
        "source_entries",
        *_of_source(),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=True),
        sa.Column("etag", sa.Text(), nullable=True),
        sa.Column("last_modified", sa.Text(), nullable=True),
        sa.Column("stamp", sa.Text(), nullable=True),
        sa.Column("content_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("misses", sa.Integer(), server_default=sa.text("0"), nullable=False),
        _now("updated_at"),
        sa.PrimaryKeyConstraint("tenant_id", "source_id", "key"),
    )
    op.create_index("source_entries_document", "source_entries", ["tenant_id", "document_id"])


def _create_runs() -> None:
    counts = ("added", "changed", "unchanged", "vanished", "failed")
    op.create_table(
        "source_runs",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("source_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False) for name in counts),
        sa.Column("error", postgresql.JSONB(), nullable=True),
        sa.Column("errors", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        _now("created_at"),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id"),
        sa.ForeignKeyConstraint(["tenant_id", "source_id"], ["sources.tenant_id", "sources.id"]),
    )
    op.create_index("source_runs_listing", "source_runs", ["tenant_id", "source_id", "created_at", "id"])
    unfinished = sa.text("finished_at IS NULL")
    op.create_index(
        "source_runs_one", "source_runs", ["tenant_id", "source_id"], unique=True, postgresql_where=unfinished
    )


def _of_source() -> tuple[sa.Column[object] | sa.ForeignKeyConstraint, ...]:
    return (
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("source_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id", "source_id"], ["sources.tenant_id", "sources.id"]),
    )


def _now(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)
