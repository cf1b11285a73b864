"""Where a tenant's index lies: tier, bucket, server; what the operator chose; when an unused index was released."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SCOPE = "current_setting('app.scope', true)"
NARROW_SCOPES = (
    ("index_generations", "operator_read", "tessera_app", f"{SCOPE} = 'admin'"),
    ("index_generations", "upkeep_read", "tessera_worker", f"{SCOPE} = 'dispatcher'"),
    ("index_use", "operator_read", "tessera_app", f"{SCOPE} = 'admin'"),
    ("jobs", "upkeep_of_indexes", "tessera_app", f"{SCOPE} = 'admin' AND kind = 'partition'"),
)
MEASURED = ("woke_ms", "recall", "recall_low", "recall_high")
_ROWS = (
    "UPDATE index_generations g SET rows = coalesce((SELECT sum(m.rows) FROM micro_cells m"
    " WHERE m.tenant_id = g.tenant_id AND m.generation = g.generation), 0)"
)
_BY_SIZE = "UPDATE tenants SET placement = 'auto'"
_DEDICATED = "UPDATE tenants SET placement = 'dedicated'"


def upgrade() -> None:
    op.add_column("tenants", sa.Column("endpoint", sa.Text(), server_default="", nullable=False))
    for column in (
        sa.Column("tier", sa.Text(), server_default="dedicated", nullable=False),
        sa.Column("bucket", sa.Integer(), server_default="0", nullable=False),
        sa.Column("endpoint", sa.Text(), server_default="", nullable=False),
        sa.Column("rows", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("trained_residual", sa.Float(), nullable=True),
    ):
        op.add_column("index_generations", column)
    op.add_column("index_use", sa.Column("released_at", sa.DateTime(timezone=True), nullable=True))
    for name in MEASURED:
        op.add_column("index_use", sa.Column(name, sa.Float(), nullable=True))
    op.add_column("index_use", sa.Column("samples", sa.Integer(), server_default="0", nullable=False))
    op.create_index("index_use_awake", "index_use", ["used_at"], postgresql_where=sa.text("released_at IS NULL"))
    # Before Postgres has analysed an import, the pre-filter may be planned as a nested loop over documents.
    op.create_index("documents_active", "documents", ["tenant_id", "active_version_no"])
    _as_owner("tenants", "index_generations", "micro_cells", statements=(_ROWS, _BY_SIZE))
    for table, name, role, condition in NARROW_SCOPES:
        op.execute(f"CREATE POLICY {name} ON {table} FOR SELECT TO {role} USING ({condition})")


def downgrade() -> None:
    for table, name, _, _ in NARROW_SCOPES:
        op.execute(f"DROP POLICY {name} ON {table}")
    _as_owner("tenants", statements=(_DEDICATED,))
    op.drop_index("documents_active", "documents")
    op.drop_index("index_use_awake", "index_use")
    for name in ("released_at", "samples", *MEASURED):
        op.drop_column("index_use", name)
    for column in ("tier", "bucket", "endpoint", "rows", "trained_residual"):
        op.drop_column("index_generations", column)
    op.drop_column("tenants", "endpoint")


def _as_owner(*tables: str, statements: tuple[str, ...]) -> None:
    """Row-level security is forced on the owner too, who would see no row."""
    for table in tables:
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    for statement in statements:
        op.execute(statement)
    for table in tables:
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
