"""What a search must have seen of a generation's writes: the vector store's time after the last of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("index_generations", sa.Column("mark", sa.BigInteger, server_default=sa.text("0"), nullable=False))


def downgrade() -> None:
    op.drop_column("index_generations", "mark")
