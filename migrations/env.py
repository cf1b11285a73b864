"""Alembic's environment: one transaction, bounded lock waits, one runner at a time."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, text

from migrations.tables import METADATA

_LOCK_KEY = 7_223_019_553_201
_URL = str(context.config.attributes["url"])

_engine = create_engine(_URL)
with _engine.connect() as _connection:
    _connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK_KEY})
    _connection.execute(text("SET lock_timeout = '4s'"))
    _connection.execute(text("SET statement_timeout = '60s'"))
    _connection.commit()
    context.configure(connection=_connection, target_metadata=METADATA, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
    _connection.commit()
_engine.dispose()
