"""How a tenant's index is used: heat of its cells, sampled questions with their true best chunks, when it is due."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TENANT = "nullif(current_setting('app.tenant_id', true), '')::uuid"
SCOPE = "current_setting('app.scope', true)"
APP_GRANTS = {
    "index_use": "SELECT, INSERT, UPDATE",
    "cell_heat": "SELECT, INSERT, UPDATE",
    "probe_samples": "SELECT, INSERT",
}


def upgrade() -> None:
    op.create_table(
        "index_use",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("searches", sa.BigInteger(), nullable=False),
        sa.Column("upkeep_due", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id"),
    )
    op.create_index("index_use_due", "index_use", ["tenant_id"], postgresql_where=sa.text("upkeep_due"))
    op.create_table(
        "cell_heat",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("cell", sa.Integer(), nullable=False),
        sa.Column("heat", sa.Float(), nullable=False),
        sa.Column("counted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "generation", "cell"),
    )
    op.create_table(
        "probe_samples",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.Column("truth", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("recall", sa.Float(), nullable=False),
        sa.Column("predicted", sa.Float(), nullable=False),
        sa.Column("rows_share", sa.Float(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id"),
    )
    for table, privileges in APP_GRANTS.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO tessera_worker")
        op.execute(f"GRANT {privileges} ON {table} TO tessera_app")
        op.execute(
            f"CREATE POLICY tenant_guard ON {table} TO tessera_app, tessera_worker"
            f" USING (tenant_id = {TENANT}) WITH CHECK (tenant_id = {TENANT})"
        )
    op.execute(f"CREATE POLICY upkeep_read ON index_use FOR SELECT TO tessera_worker USING ({SCOPE} = 'dispatcher')")


def downgrade() -> None:
    for table in APP_GRANTS:
        op.drop_table(table)
