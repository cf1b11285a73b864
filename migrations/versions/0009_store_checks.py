"""What the newest check of each tenant's stores found; the operator sees the jobs that check."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TENANT = "nullif(current_setting('app.tenant_id', true), '')::uuid"
SCOPE = "current_setting('app.scope', true)"
NARROW_SCOPES = (
    ("store_checks", "operator_read", "tessera_app", f"{SCOPE} = 'admin'"),
    ("store_checks", "upkeep_read", "tessera_worker", f"{SCOPE} = 'dispatcher'"),
)


def upgrade() -> None:
    op.add_column("documents", sa.Column("original", sa.Text(), server_default="intact", nullable=False))
    op.create_table(
        "store_checks",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("chunks", sa.BigInteger(), nullable=False),
        sa.Column("differences", postgresql.JSONB(), nullable=False),
        sa.Column("repaired", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"]),
        sa.PrimaryKeyConstraint("tenant_id"),
    )
    op.create_index(
        "jobs_regular",
        "jobs",
        ["tenant_id", "kind", "created_at"],
        postgresql_where=sa.text("kind IN ('fsck', 'retention', 'partition')"),
    )
    op.execute("ALTER TABLE store_checks ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE store_checks FORCE ROW LEVEL SECURITY")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON store_checks TO tessera_worker")
    op.execute("GRANT SELECT ON store_checks TO tessera_app")
    op.execute(
        "CREATE POLICY tenant_guard ON store_checks TO tessera_app, tessera_worker"
        f" USING (tenant_id = {TENANT}) WITH CHECK (tenant_id = {TENANT})"
    )
    for table, name, role, condition in NARROW_SCOPES:
        op.execute(f"CREATE POLICY {name} ON {table} FOR SELECT TO {role} USING ({condition})")


def downgrade() -> None:
    for table, name, _, _ in NARROW_SCOPES:
        op.execute(f"DROP POLICY {name} ON {table}")
    op.drop_index("jobs_regular", "jobs")
    op.drop_table("store_checks")
    op.drop_column("documents", "original")
