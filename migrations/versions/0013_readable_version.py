"""The service's own roles may read the version of the schema, so that they refuse one that they cannot work with."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("GRANT SELECT ON alembic_version TO tessera_app, tessera_worker")


def downgrade() -> None:
    op.execute("REVOKE SELECT ON alembic_version FROM tessera_app, tessera_worker")
