"""Ended jobs are found by indexes of their own and forgotten after a while; the queue is read without them."""

from __future__ import annotations

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
DISPATCHER = "current_setting('app.scope', true) = 'dispatcher'"


def upgrade() -> None:
    for name, columns, where in JOB_INDEXES:
        op.create_index(name, "jobs", columns, postgresql_where=sa.text(where))
    # What a receipt proves stays: the policy lets nobody forget it.
    op.execute(f"CREATE POLICY forgetting ON jobs FOR DELETE TO tessera_worker USING ({DISPATCHER} AND {FORGOTTEN})")


def downgrade() -> None:
    op.execute("DROP POLICY forgetting ON jobs")
    for name, _, _ in JOB_INDEXES:
        op.drop_index(name, "jobs")
