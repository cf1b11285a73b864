"""What quotes a document is found by the document, however many answers a tenant has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import create_engine, event, text

from rag import conversations, withdrawal
from service.quotes import StoredQuotes
from tenants import idempotency
from tenants.db import Database
from tenants.models import IdempotentAnswer

if TYPE_CHECKING:
    from tests.conftest import DatabaseUrls

MANY = 3000
"""Answers that quote other documents."""
_MANY = (
    "INSERT INTO conversations (tenant_id, id, title) VALUES (:tenant, :tenant, 't')",
    "INSERT INTO messages (tenant_id, id, conversation_id, role, content, answer) SELECT :tenant, gen_random_uuid(),"
    " :tenant, 'assistant', 'c', jsonb_build_object('answer', 'c', 'citations', jsonb_build_array(jsonb_build_object("
    "'document_id', CAST(gen_random_uuid() AS text)))) FROM generate_series(1, :many)",
    "INSERT INTO message_citations (tenant_id, document_id, message_id, version)"
    " SELECT tenant_id, CAST(answer -> 'citations' -> 0 ->> 'document_id' AS uuid), id, 1 FROM messages"
    " WHERE tenant_id = :tenant",
    "INSERT INTO idempotent_answers (tenant_id, route, key, fingerprint, status, body) SELECT :tenant,"
    " 'POST /v1/search?/v1/search', CAST(n AS text), 'f', 200, jsonb_build_object('text', CAST(gen_random_uuid() AS"
    " text)) FROM generate_series(1, :many) n",
    "INSERT INTO answer_quotes (tenant_id, document_id, route, key, version)"
    " SELECT tenant_id, CAST(body ->> 'text' AS uuid), route, key, 1 FROM idempotent_answers WHERE tenant_id = :tenant",
)


@pytest.fixture
async def tenant_id(worker_database: Database, own_database: DatabaseUrls) -> AsyncIterator[UUID]:
    made = uuid4()
    values = {"tenant": made, "many": MANY}
    engine = create_engine(own_database.superuser, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(
            text(
                "INSERT INTO tenants (id, slug, name, plan, state, placement, settings)"
                " VALUES (:tenant, CAST(:tenant AS text), 'n', 'p', 'active', 'auto', '{}')"
            ),
            {"tenant": made},
        )
        for statement in _MANY:
            connection.execute(text(statement), values)
        connection.execute(text("VACUUM ANALYZE messages, message_citations, idempotent_answers, answer_quotes"))
    yield made
    with engine.connect() as connection:
        for table in ("messages", "conversations", "idempotent_answers"):
            connection.execute(text(f"DELETE FROM {table} WHERE tenant_id = :tenant"), values)
        connection.execute(text("DELETE FROM tenants WHERE id = :tenant"), values)
    engine.dispose()


def claimed(database: Database, tenant_id: UUID) -> idempotency.Claim:
    row = {"tenant": tenant_id, "route": "POST /v1/search?/v1/search", "key": "mine", "claim": "first"}
    return idempotency.Claim(database, row)


async def remember(database: Database, tenant_id: UUID, document_id: UUID) -> None:
    """An exchange and a remembered answer that quote a document."""
    request: Any = SimpleNamespace(state=SimpleNamespace())
    idempotency.quote(request, {uuid4(): 1})
    idempotency.quote(request, {document_id: 2})
    claim = claimed(database, tenant_id)
    async with claim.session() as session:
        route, body = claim.row["route"], {"claim": "first"}
        session.add(IdempotentAnswer(tenant_id=tenant_id, route=route, key="mine", fingerprint=b"f", body=body))
        answer = {"answer": "It is heliotrope.", "citations": [{"document_id": str(document_id)}]}
        await conversations.add_exchange(
            session,
            tenant_id,
            uuid4(),
            begins=True,
            question="q",
            question_id=uuid4(),
            message_id=uuid4(),
            answer=answer,
            cited={document_id: 2},
        )
    await claim.fill(200, b"It is heliotrope.", None, request.state.quoted)


async def test_what_quotes_a_document_is_removed_without_reading_the_rest(
    worker_database: Database, app_database: Database, tenant_id: UUID
) -> None:
    document_id = uuid4()
    await remember(app_database, tenant_id, document_id)
    said: list[tuple[str, Any]] = []

    def hear(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        said.append((statement, values))

    async with worker_database.tenant(tenant_id) as session:
        engine = session.get_bind()
        event.listen(engine, "before_cursor_execute", hear)
        removed = await StoredQuotes().remove(session, tenant_id, document_id)
        event.remove(engine, "before_cursor_execute", hear)
        assert removed == {"messages": 1, "answers": 1}
        await session.rollback()
        connection = await session.connection()
        for statement, values in said[1:]:  # the first sets the scope
            rows = await connection.exec_driver_sql(f"EXPLAIN (COSTS OFF) {statement}", values)
            plan = "\n".join(rows.scalars())
            assert "Seq Scan" not in plan, plan
            assert "document_id" in plan, plan
        await session.rollback()
        assert await StoredQuotes().remove(session, tenant_id, document_id) == removed
        await session.commit()
        left = await session.scalars(text("SELECT content || answer::text FROM messages WHERE answer ? 'withdrawn'"))
        assert [withdrawal.WITHDRAWN in one and "heliotrope" not in one for one in left] == [True]
        for table in ("message_citations", "answer_quotes"):
            query = text(f"SELECT count(*) FROM {table} WHERE document_id = :document")
            assert await session.scalar(query, {"document": document_id}) == 0
        assert await StoredQuotes().remove(session, tenant_id, document_id) == {"messages": 0, "answers": 0}


async def test_what_is_known_of_an_answer_goes_with_it(app_database: Database, tenant_id: UUID) -> None:
    document_id, counts = uuid4(), []
    await remember(app_database, tenant_id, document_id)
    async with app_database.tenant(tenant_id) as session:
        query = "SELECT conversation_id FROM messages WHERE answer ->> 'answer' = 'It is heliotrope.'"
        await conversations.remove(session, tenant_id, await session.scalar(text(query)))
        await session.execute(text("DELETE FROM idempotent_answers WHERE key = 'mine'"))
        for table in ("message_citations", "answer_quotes"):
            counted = text(f"SELECT count(*) FROM {table} WHERE document_id = :document")
            counts.append(await session.scalar(counted, {"document": document_id}))
        assert counts == [0, 0]


async def test_a_key_that_is_used_again_quotes_only_what_it_says_now(app_database: Database, tenant_id: UUID) -> None:
    claim, earlier, other = claimed(app_database, tenant_id), uuid4(), uuid4()
    await remember(app_database, tenant_id, earlier)
    async with claim.session() as session:
        again = "UPDATE idempotent_answers SET status = NULL, body = '{\"claim\": \"first\"}' WHERE key = 'mine'"
        await session.execute(text(again))
        assert await idempotency.withdraw(session, tenant_id, earlier) == 0, "it is under way"
    await claim.fill(200, b"", None, {other: 1})
    async with app_database.tenant(tenant_id) as session:
        found = await session.scalars(text("SELECT document_id FROM answer_quotes WHERE key = 'mine'"))
        assert list(found) == [other]
