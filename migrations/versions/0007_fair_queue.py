"""Priorities inside a tenant, lanes for what takes long, the queue read by them; the operator sees how long it is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_WAITING = "state IN ('queued', 'retrying')"
_NOT_GIVEN_OUT = f"{_WAITING} AND batch_id IS NULL"
_OPERATOR = "current_setting('app.scope', true) = 'admin'"
_UPKEEP = "kind = 'partition'"
_BACKGROUND = "UPDATE jobs SET lane = 2 WHERE kind IN ('partition', 'release', 'drop_generation')"


def upgrade() -> None:
    for name in ("priority", "lane"):
        op.add_column("jobs", sa.Column(name, sa.SmallInteger(), server_default="0", nullable=False))
    # Row-level security is forced on the owner too, who would see no row.
    op.execute("ALTER TABLE jobs NO FORCE ROW LEVEL SECURITY")
    op.execute(_BACKGROUND)
    op.execute("ALTER TABLE jobs FORCE ROW LEVEL SECURITY")
    op.execute("DROP POLICY upkeep_of_indexes ON jobs")
    op.execute(f"CREATE POLICY operator_read ON jobs FOR SELECT TO tessera_app USING ({_OPERATOR})")
    op.drop_index("jobs_waiting", "jobs")
    op.drop_index("jobs_upkeep", "jobs")
    _index("jobs_waiting", ["tenant_id", "lane", "priority", "created_at", "id"], _NOT_GIVEN_OUT)
    _index("jobs_upkeep", ["tenant_id", "created_at", "id"], f"{_NOT_GIVEN_OUT} AND kind <> 'ingest'")


def downgrade() -> None:
    op.drop_index("jobs_waiting", "jobs")
    op.drop_index("jobs_upkeep", "jobs")
    _index("jobs_waiting", ["tenant_id", "created_at"], _WAITING)
    _index("jobs_upkeep", ["tenant_id", "created_at"], f"{_WAITING} AND kind <> 'ingest'")
    op.execute("DROP POLICY operator_read ON jobs")
    op.execute(f"CREATE POLICY upkeep_of_indexes ON jobs FOR SELECT TO tessera_app USING ({_OPERATOR} AND {_UPKEEP})")
    for name in ("priority", "lane"):
        op.drop_column("jobs", name)


def _index(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "jobs", columns, postgresql_where=sa.text(where))
