"""How Postgres answers the questions of a check: once over a tenant's places, however many micro-cells it has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import TextClause, text

from ingestion.fsck import mend
from ingestion.fsck.questions import QUESTIONS

if TYPE_CHECKING:
    from tenants.db import Database

_MICROS = next(question.query for question in QUESTIONS if question.name == "micros")


def nodes(plan: dict[str, Any], *, repeated: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield the tables that a plan reads, each with whether it does so for every row of another one."""
    repeated |= plan.get("Parent Relationship") == "SubPlan"
    if "Relation Name" in plan:
        yield plan["Relation Name"], repeated
    for one in plan.get("Plans", []):
        yield from nodes(one, repeated=repeated and plan.get("Parent Relationship") != "InitPlan")


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
