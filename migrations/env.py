"""Alembic's environment: one transaction a migration, bounded lock waits, one runner at a time."""

from __future__ import annotations

from typing import Any

from alembic import context

from migrations.runner import Run, Step, alone, demand, write_demand
from migrations.tables import METADATA

_run: Run = context.config.attributes["run"]

with alone(_run) as _connection:

    def _applied(*, ctx: Any, step: Any, **_: Any) -> None:
        revision = step.up_revision
        write_demand(_connection, demand(context.script, next(iter(ctx.get_current_heads()), None)))
        _run.applied(Step(revision.revision, (revision.doc or "").splitlines()[0], step.is_upgrade))

    context.configure(
        connection=_connection,
        target_metadata=METADATA,
        transaction_per_migration=True,
        on_version_apply=_applied,  # type: ignore[arg-type]  # it is called by name
    )
    with context.begin_transaction():
        context.run_migrations()
