"""The questions of a check, asked of Postgres alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import TextClause, text

from ingestion import jobs
from ingestion.fsck import mend
from ingestion.fsck.questions import QUESTIONS
from tenants.models import Tenant

if TYPE_CHECKING:
    from tenants.db import Database

_MICROS, _UNBUILT = (
    next(question.query for question in QUESTIONS if question.name == name) for name in ("micros", "unbuilt")
)


def nodes(plan: dict[str, Any], *, repeated: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield the tables that a plan reads, each with whether it does so for every row of another one."""
    repeated |= plan.get("Parent Relationship") == "SubPlan"
    if "Relation Name" in plan:
        yield plan["Relation Name"], repeated
    for one in plan.get("Plans", []):
        yield from nodes(one, repeated=repeated and plan.get("Parent Relationship") != "InitPlan")


@pytest.mark.parametrize(
    ("state", "live", "job", "found"),
    [
        ("building", True, None, True),
        ("building", True, "partition", False),
        ("building", True, "reembed", True),
        ("building", False, None, False),  # the tenant's next upload goes on with its first index
        ("embedding", True, None, True),
        ("embedding", True, "partition", True),
        ("embedding", True, "reembed", False),
    ],
)
async def test_an_index_that_nobody_finishes(
    worker_database: Database, state: str, live: bool, job: str | None, found: bool
) -> None:
    tenant_id = uuid4()
    async with worker_database.admin() as session, session.begin():
        values = {"name": "n", "plan": "p", "state": "active", "placement": "auto", "settings": {}}
        session.add(Tenant(id=tenant_id, slug=str(tenant_id), **values))
    made = (
        "INSERT INTO index_generations (tenant_id, generation, state, collection, tier, bucket, endpoint, embedder,"
        " dim, rows, cells, micros, next_cell, stamp, trained_rows, created_at) VALUES (:tenant, :number, :state, 'c',"
        " 'dedicated', 0, '', 'e', 8, 0, 1, 1, 1, 0, 0, now() - interval '1 hour')"
    )
    async with worker_database.tenant(tenant_id) as session, session.begin():
        for number, one in ((1, "live"), (2, state)) if live else ((2, state),):
            await session.execute(text(made), {"tenant": tenant_id, "number": number, "state": one})
        if job is not None:
            session.add(jobs.new_job(tenant_id, job, payload={"wish": "pause"}, delay=timedelta(days=1000)))
    values = {"tenant": tenant_id}
    async with worker_database.tenant(tenant_id) as session, session.begin():
        rows = (await session.execute(_UNBUILT, values)).all()
        assert [row.version for row in rows] == ([2] if found else [])
        await session.execute(mend._GIVE_UP, values | {"generation": 2})
        states = text("SELECT state FROM index_generations WHERE generation = 2")
        assert await session.scalar(states) == ("retired" if found else state)
        await session.execute(text("DELETE FROM jobs"))


@pytest.mark.parametrize("statement", [_MICROS, mend._COUNT], ids=["question", "repair"])
async def test_places_are_counted_once(worker_database: Database, statement: TextClause) -> None:
    tenant_id = uuid4()
    values = {"tenant": tenant_id, "generation": 1, "stamp": 1}
    wanted = {name: value for name, value in values.items() if f":{name}" in statement.text}
    async with worker_database.tenant(tenant_id) as session:
        explained = text(f"EXPLAIN (FORMAT JSON) {statement.text}")
        [row] = (await session.execute(explained, wanted)).all()
    read = list(nodes(row[0][0]["Plan"]))
    assert [repeated for table, repeated in read if table == "chunk_cells"] == [False], read
