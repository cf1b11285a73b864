"""The schema as it really is after the migrations: guarded by tenant everywhere, and the same as the models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, text

from migrations.run import alembic_config
from migrations.tables import METADATA

if TYPE_CHECKING:
    from tests.conftest import DatabaseUrls

TABLES = sorted(METADATA.tables)
TENANT_TABLES = sorted(name for name, table in METADATA.tables.items() if "tenant_id" in table.c)


@pytest.fixture(scope="module")
def connection(own_database: DatabaseUrls) -> Iterator[Connection]:
    engine = create_engine(own_database.superuser)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def test_models_and_migrations_give_the_same_schema(connection: Connection) -> None:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    assert compare_metadata(context, METADATA) == []


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_row_level_security_enabled_and_forced(connection: Connection, table: str) -> None:
    row = connection.execute(
        text("SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = CAST(:table AS regclass)"),
        {"table": table},
    ).one()
    assert tuple(row) == (True, True)


def test_no_table_has_escaped_the_models(connection: Connection) -> None:
    found = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars()
    assert set(found) == {*TABLES, "alembic_version"}


def test_every_policy_that_lets_write_checks_what_is_written(connection: Connection) -> None:
    query = (
        "SELECT tablename, policyname FROM pg_policies WHERE cmd IN ('ALL', 'INSERT', 'UPDATE') AND with_check IS NULL"
    )
    assert connection.execute(text(query)).all() == []


@pytest.mark.parametrize("table", TENANT_TABLES)
def test_every_unique_index_begins_with_the_tenant(connection: Connection, table: str) -> None:
    query = (
        "SELECT i.relname, a.attname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid"
        " JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]"
        " WHERE x.indrelid = CAST(:table AS regclass) AND x.indisunique"
    )
    firsts = connection.execute(text(query), {"table": table}).all()
    assert firsts
    assert {first for _, first in firsts} == {"tenant_id"}


def test_no_index_knows_of_a_sign_of_life(connection: Connection) -> None:
    """Or each renewal of a lease would write to all indexes of the jobs of a batch."""
    query = "SELECT indexdef FROM pg_indexes WHERE tablename = 'jobs'"
    found = " ".join(connection.execute(text(query)).scalars())
    assert "batch_id" in found
    assert [column for column in ("lease_until", "stage", "progress") if column in found] == []


@pytest.mark.parametrize("role", ["tessera_app", "tessera_worker"])
def test_the_service_roles_own_nothing_and_bypass_nothing(connection: Connection, role: str) -> None:
    row = connection.execute(
        text(
            "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb,"
            " pg_has_role(rolname, 'tessera_owner', 'MEMBER'),"
            " EXISTS (SELECT 1 FROM pg_class WHERE relowner = r.oid) FROM pg_roles r WHERE rolname = :role"
        ),
        {"role": role},
    ).one()
    assert not any(row)


def test_the_migrations_go_down_and_up_again(spare_database: DatabaseUrls) -> None:
    config = alembic_config(spare_database.owner)
    command.downgrade(config, "base")
    engine = create_engine(spare_database.superuser)
    with engine.connect() as connection:
        left = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars()
        assert set(left) == {"alembic_version"}
    command.upgrade(config, "head")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()


def test_an_index_made_before_micro_cells_is_recorded_as_one(spare_database: DatabaseUrls) -> None:
    """The owner is bound by row-level security too: a migration that reads must not see nothing."""
    config = alembic_config(spare_database.owner)
    command.downgrade(config, "0003")
    engine = create_engine(spare_database.superuser)
    tenant, document = uuid4(), uuid4()
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO tenants (id, slug, name, plan, state, placement, settings)"
            " VALUES (:tenant, 's', 'n', 'p', 'active', 'd', '{}')",
            "INSERT INTO documents (tenant_id, id, title, state, source, format, metadata, content_sha256,"
            " latest_version, created_at) VALUES (:tenant, :document, 't', 'active', 'u', 'txt', '{}', '', 1, now())",
            "INSERT INTO document_versions (tenant_id, document_id, version, title, title_given, filename,"
            " content_type, format, size_bytes, content_sha256, object_key, metadata, state)"
            " VALUES (:tenant, :document, 1, 't', true, 'f', 'c', 'txt', 1, '', 'k', '{}', 'active')",
            "INSERT INTO chunks (tenant_id, id, document_id, version, position, headings, text, span_start, span_end,"
            " tokens, token_bits) SELECT :tenant, gen_random_uuid(), :document, 1, n, '{}', 'x', 0, 1, 1, ''"
            " FROM generate_series(1, 5) n",
            "INSERT INTO index_generations (tenant_id, generation, state, collection, embedder, dim, cells,"
            " trained_rows) VALUES (:tenant, 2, 'live', 'c', 'e', 4, 3, 900)",
        ):
            connection.execute(text(statement), {"tenant": tenant, "document": document})
    command.upgrade(config, "head")
    with engine.begin() as connection:
        micro = connection.execute(text("SELECT micro, cell, rows, length(sum_vector) FROM micro_cells")).one()
        assert tuple(micro) == (0, 0, 5, 16)
        assert connection.execute(text("SELECT count(*) FROM chunk_cells WHERE generation = 2")).scalar() == 5
        generation = connection.execute(text("SELECT micros, cells, trained_rows, next_cell FROM index_generations"))
        assert tuple(generation.one()) == (1, 3, 0, 3)
        forced = "SELECT bool_and(relforcerowsecurity) FROM pg_class WHERE relname IN ('chunks', 'index_generations')"
        assert connection.execute(text(forced)).scalar() is True
        for table in ("chunk_cells", "micro_cells", "index_generations", "chunks", "document_versions", "documents"):
            connection.execute(text(f"DELETE FROM {table}"))
        connection.execute(text("DELETE FROM tenants"))
    engine.dispose()


def test_answers_given_before_are_known_by_what_they_quote(spare_database: DatabaseUrls) -> None:
    config = alembic_config(spare_database.owner)
    command.downgrade(config, "0010")
    engine = create_engine(spare_database.superuser)
    tenant, message, chunk = uuid4(), uuid4(), uuid4()
    same, replaced, gone = uuid4(), uuid4(), uuid4()
    cited = [{"document_id": str(one), "chunk_id": str(chunk if one == same else uuid4())} for one in (same, replaced)]
    cited.append({"document_id": str(gone), "chunk_id": str(uuid4())})
    values = {"tenant": tenant, "same": same, "replaced": replaced, "chunk": chunk, "message": message}
    values |= {"answer": json.dumps({"citations": cited}), "body": json.dumps({"text": json.dumps({"hits": cited})})}
    with engine.begin() as connection:
        for statement in _SAID:
            connection.execute(text(statement), values)
    command.upgrade(config, "head")
    with engine.begin() as connection:
        found = connection.execute(text("SELECT document_id, version FROM message_citations"))
        assert {row.document_id: row.version for row in found} == {same: 3, replaced: 0, gone: 0}
        found = connection.execute(text("SELECT document_id, version FROM answer_quotes WHERE key = 'k'"))
        assert {row.document_id: row.version for row in found} == {same: 3, replaced: 0, gone: 0}
        for table in ("messages", "conversations", "idempotent_answers", "chunks", "documents", "tenants"):
            connection.execute(text(f"DELETE FROM {table}"))
        for table in ("message_citations", "answer_quotes"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0
    engine.dispose()


_SAID = (
    "INSERT INTO tenants (id, slug, name, plan, state, placement, settings)"
    " VALUES (:tenant, 's', 'n', 'p', 'active', 'auto', '{}')",
    "INSERT INTO documents (tenant_id, id, title, state, source, format, metadata, content_sha256, latest_version,"
    " active_version, created_at, updated_at) SELECT :tenant, d, 't', 'active', 'u', 'txt', '{}', uuid_send(d), 3, 3,"
    " now(), now() + later FROM (VALUES (CAST(:same AS uuid), interval '-1 hour'), (CAST(:replaced AS uuid), interval"
    " '1 hour')) v (d, later)",
    "INSERT INTO conversations (tenant_id, id, title) VALUES (:tenant, :tenant, 't')",
    "INSERT INTO messages (tenant_id, id, conversation_id, role, content, answer)"
    " VALUES (:tenant, :message, :tenant, 'assistant', 'c', CAST(:answer AS jsonb)),"
    " (:tenant, :tenant, :tenant, 'user', 'c', NULL)",
    "INSERT INTO idempotent_answers (tenant_id, route, key, fingerprint, body)"
    " VALUES (:tenant, 'POST /v1/chat?/v1/chat', 'k', '', CAST(:body AS jsonb)),"
    " (:tenant, 'POST /v1/documents?/v1/documents', 'upload', '', CAST(:body AS jsonb)),"
    " (:tenant, 'POST /v1/chat?/v1/chat', 'in flight', '', NULL)",
)
