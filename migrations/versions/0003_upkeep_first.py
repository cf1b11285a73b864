"""An index for the jobs that go before ingestion: deletions and the upkeep of the index."""

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


def downgrade() -> None:
    op.drop_index("jobs_upkeep", table_name="jobs")
