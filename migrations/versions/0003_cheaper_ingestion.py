"""An index for the jobs that go before ingestion; token bits, which do not compress, are stored without trying."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "jobs_upkeep",
        "jobs",
        ["tenant_id", "created_at"],
        postgresql_where=sa.text("state IN ('queued', 'retrying') AND kind <> 'ingest'"),
    )

    op.execute("ALTER TABLE chunks ALTER COLUMN token_bits SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.execute("ALTER TABLE chunks ALTER COLUMN token_bits SET STORAGE EXTENDED")
    op.drop_index("jobs_upkeep", table_name="jobs")
