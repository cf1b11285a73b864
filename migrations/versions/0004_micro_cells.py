"""Micro-cells: where every chunk lies, and what a query needs to know of each micro-cell.

A generation that was made before has its rows recorded as one micro-cell, and is searched as a whole until it is
trained anew, at the tenant's next upload.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = ("micro_cells", "chunk_cells", "cell_changes")
READ = ("index_generations", "chunks", "document_versions")
TENANT = "nullif(current_setting('app.tenant_id', true), '')::uuid"


def upgrade() -> None:
    op.create_table(
        "micro_cells",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("micro", sa.Integer(), nullable=False),
        sa.Column("cell", sa.Integer(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("stamp", sa.BigInteger(), nullable=False),
        sa.Column("sum_vector", sa.LargeBinary(), nullable=False),
        sa.Column("centroid", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "generation", "micro"),
    )
    op.create_index("micro_cells_stamp", "micro_cells", ["tenant_id", "generation", "stamp"])
    op.create_table(
        "chunk_cells",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("version_no", sa.BigInteger(), nullable=False),
        sa.Column("chunk_id", sa.Uuid(), nullable=False),
        sa.Column("micro", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "generation", "version_no", "chunk_id"),
    )
    op.create_table(
        "cell_changes",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("parents", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("children", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id"),
    )
    # The sum changes with every row and stays in the row; the centroid never changes and is kept apart, so that an
    # update does not write it again. Neither compresses.
    op.execute("ALTER TABLE micro_cells ALTER COLUMN sum_vector SET STORAGE MAIN")
    op.execute("ALTER TABLE micro_cells ALTER COLUMN centroid SET STORAGE EXTERNAL")
    op.add_column("index_generations", sa.Column("micros", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("index_generations", sa.Column("next_cell", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("index_generations", sa.Column("stamp", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("index_generations", sa.Column("dimension", sa.Float()))
    op.add_column("index_generations", sa.Column("calibration", postgresql.JSONB()))
    for table in READ:  # the owner too is bound by row-level security, and would see nothing
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    op.execute(
        "INSERT INTO chunk_cells (tenant_id, generation, version_no, chunk_id, micro)"
        " SELECT g.tenant_id, g.generation, v.version_no, c.id, 0 FROM index_generations g"
        " JOIN chunks c ON c.tenant_id = g.tenant_id JOIN document_versions v ON v.tenant_id = c.tenant_id"
        " AND v.document_id = c.document_id AND v.version = c.version WHERE g.state = 'live'"
    )
    op.execute(
        "INSERT INTO micro_cells (tenant_id, generation, micro, cell, rows, stamp, sum_vector, centroid)"
        " SELECT g.tenant_id, g.generation, 0, 0, (SELECT count(*) FROM chunk_cells c WHERE c.tenant_id = g.tenant_id"
        " AND c.generation = g.generation), 0, z.zeros, z.zeros FROM index_generations g,"
        " LATERAL (SELECT decode(repeat('00', 4 * g.dim), 'hex') AS zeros) z WHERE g.state = 'live'"
    )
    op.execute("UPDATE index_generations SET trained_rows = 0, next_cell = cells")
    for table in READ:
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    for column in ("micros", "next_cell", "stamp"):
        op.alter_column("index_generations", column, server_default=None)
    op.drop_column("index_generations", "centroids")
    op.drop_column("index_generations", "cell_rows")
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO tessera_worker")
        op.execute(f"GRANT SELECT ON {table} TO tessera_app")
        op.execute(
            f"CREATE POLICY tenant_guard ON {table} TO tessera_app, tessera_worker"
            f" USING (tenant_id = {TENANT}) WITH CHECK (tenant_id = {TENANT})"
        )


def downgrade() -> None:
    op.add_column("index_generations", sa.Column("centroids", sa.LargeBinary()))
    op.add_column("index_generations", sa.Column("cell_rows", postgresql.ARRAY(sa.BigInteger())))
    for column in ("micros", "next_cell", "stamp", "dimension", "calibration"):
        op.drop_column("index_generations", column)
    for table in TABLES:
        op.drop_table(table)
