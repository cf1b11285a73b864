"""Row-level security on the real server, as the roles that the service really uses."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from sqlalchemy import create_engine, delete, func, insert, make_url, select, text, update
from sqlalchemy.exc import DBAPIError, ProgrammingError

from migrations.head import HEAD
from migrations.tables import METADATA
from tenants.db import Database, ScopedSession
from tenants.errors import Misconfigured, Unavailable
from tenants.one_trip import Statement
from tenants.postgres_check import check_postgres
from tenants.settings import DatabaseSettings

if TYPE_CHECKING:
    from tests.conftest import DatabaseUrls

TENANT_TABLES = sorted(name for name, table in METADATA.tables.items() if "tenant_id" in table.c)
A, B = uuid4(), uuid4()


def rows_of(tenant: UUID) -> list[tuple[str, dict[str, object]]]:
    """One row for every table that has a tenant, in the order that foreign keys ask for."""
    document, conversation, now = tenant, tenant, datetime.now(UTC)
    mine = {"tenant_id": tenant}
    content = {"content_sha256": tenant.bytes, "format": "txt", "title": "t", "metadata": {}}
    return [
        (
            "tenants",
            {
                "id": tenant,
                "slug": str(tenant),
                "name": "n",
                "plan": "p",
                "state": "active",
                "placement": "auto",
                "settings": {},
            },
        ),
        ("api_keys", {**mine, "id": tenant.hex[:12], "name": "k", "digest": b"d"}),
        (
            "documents",
            {
                **mine,
                **content,
                "id": document,
                "state": "active",
                "source": "upload",
                "latest_version": 1,
                "active_version": 1,
            },
        ),
        (
            "document_versions",
            {
                **mine,
                **content,
                "document_id": document,
                "version": 1,
                "title_given": True,
                "filename": "f",
                "content_type": "c",
                "size_bytes": 1,
                "object_key": "k",
                "state": "active",
            },
        ),
        (
            "document_fields",
            {**mine, "document_id": document, "version": 1, "key": "k", "ordinal": 0, "text_value": "v"},
        ),
        (
            "chunks",
            {
                **mine,
                "id": tenant,
                "document_id": document,
                "version": 1,
                "position": 0,
                "headings": [],
                "text": "t",
                "span_start": 0,
                "span_end": 1,
                "tokens": 1,
                "token_bits": b"",
            },
        ),
        ("store_checks", {**mine, "seconds": 1.0, "chunks": 1, "differences": {}, "repaired": 0}),
        (
            "index_generations",
            {
                **mine,
                "generation": 1,
                "state": "live",
                "collection": "c",
                "embedder": "e",
                "dim": 1,
                "cells": 1,
                "micros": 1,
                "next_cell": 1,
                "stamp": 0,
                "trained_rows": 0,
            },
        ),
        (
            "micro_cells",
            {
                **mine,
                "generation": 1,
                "micro": 0,
                "cell": 0,
                "rows": 1,
                "stamp": 0,
                "sum_vector": b"s",
                "centroid": b"c",
            },
        ),
        (
            "cell_changes",
            {
                **mine,
                "id": tenant,
                "generation": 1,
                "kind": "split",
                "state": "copying",
                "parents": [0],
                "children": [1, 2],
            },
        ),
        ("index_use", {**mine, "used_at": now, "searches": 1, "upkeep_due": False}),
        ("cell_heat", {**mine, "generation": 1, "cell": 0, "heat": 1.0, "counted_at": now}),
        (
            "probe_samples",
            {
                **mine,
                "id": tenant,
                "generation": 1,
                "vector": b"v",
                "truth": [tenant],
                "recall": 1.0,
                "predicted": 1.0,
                "rows_share": 0.1,
            },
        ),
        ("chunk_cells", {**mine, "generation": 1, "version_no": 1, "chunk_id": tenant, "micro": 0}),
        ("jobs", {**mine, "id": tenant, "kind": "ingest", "state": "queued"}),
        (
            "sources",
            {
                **mine,
                "id": tenant,
                "kind": "feed",
                "name": "n",
                "config": {},
                "on_vanish": "keep",
                "misses": 1,
                "state": "active",
            },
        ),
        ("source_clocks", {**mine, "source_id": tenant, "next_run_at": now, "last_success_at": now}),
        ("source_entries", {**mine, "source_id": tenant, "key": "k", "run_id": tenant}),
        (
            "source_runs",
            {**mine, "id": tenant, "source_id": tenant, "job_id": tenant, "cause": "manual", "state": "queued"},
        ),
        ("conversations", {**mine, "id": conversation, "title": "t"}),
        ("messages", {**mine, "id": tenant, "conversation_id": conversation, "role": "user", "content": "c"}),
        ("message_citations", {**mine, "document_id": document, "message_id": tenant, "version": 1}),
        ("idempotent_answers", {**mine, "route": "r", "key": "k", "fingerprint": b"f"}),
        ("answer_quotes", {**mine, "document_id": document, "route": "r", "key": "k", "version": 1}),
    ]


@pytest.fixture(scope="module")
async def filled(worker_database: Database) -> Database:
    """Two tenants with one row in every table."""
    for tenant in (A, B):
        async with worker_database.erasure(tenant) as session:
            for name, values in rows_of(tenant):
                await session.execute(insert(METADATA.tables[name]).values(values))
            await session.commit()
    return worker_database


def test_every_tenant_table_is_in_this_test() -> None:
    assert {name for name, _ in rows_of(A)} == set(METADATA.tables)


@pytest.mark.parametrize("name", TENANT_TABLES)
async def test_another_tenants_rows_cannot_be_read_changed_moved_or_deleted(filled: Database, name: str) -> None:
    table = METADATA.tables[name]
    theirs = table.c.tenant_id == B
    async with filled.tenant(A) as session:
        seen = set(await session.scalars(select(table.c.tenant_id)))
        changed = await session.execute(update(table).where(theirs).values(tenant_id=A).returning(table.c.tenant_id))
        gone = await session.execute(delete(table).where(theirs).returning(table.c.tenant_id))
        assert (seen, changed.all(), gone.all()) == ({A}, [], [])
        await session.rollback()


@pytest.mark.parametrize(
    ("name", "values"), rows_of(uuid4())[1:], ids=lambda value: value if isinstance(value, str) else ""
)
async def test_no_row_can_be_written_for_another_tenant(filled: Database, name: str, values: dict[str, object]) -> None:
    async with filled.tenant(A) as session:
        with pytest.raises(DBAPIError, match="row-level security"):
            await session.execute(insert(METADATA.tables[name]).values({**values, "tenant_id": B}))


@pytest.mark.parametrize("name", TENANT_TABLES)
async def test_a_row_cannot_be_given_away(filled: Database, name: str) -> None:
    table = METADATA.tables[name]
    async with filled.tenant(A) as session:
        with pytest.raises(DBAPIError, match=r"row-level security|foreign key"):
            await session.execute(update(table).where(table.c.tenant_id == A).values(tenant_id=B))


@pytest.mark.parametrize("name", TENANT_TABLES)
async def test_the_admin_scope_sees_no_tenants_content(filled: Database, app_database: Database, name: str) -> None:
    async with app_database.admin() as session:
        found = set(await session.scalars(select(METADATA.tables[name].c.tenant_id)))
    # Where indexes lie, how large they are, when they were used last, what work waits, when sources
    # were read and what checks of the stores counted is the operator's business.
    if name in ("index_generations", "index_use", "jobs", "source_clocks", "store_checks"):
        assert found >= {A, B}
    else:
        assert not found


async def test_the_admin_scope_changes_nothing_that_it_sees(filled: Database, app_database: Database) -> None:
    for name in ("index_generations", "index_use", "source_clocks", "store_checks"):
        async with app_database.admin() as session:
            with suppress(ProgrammingError):  # no right at all, or no row
                result = await session.execute(update(METADATA.tables[name]).values(tenant_id=B))
                assert getattr(result, "rowcount", None) == 0


async def test_a_key_lookup_sees_its_tenant_and_no_other(filled: Database, app_database: Database) -> None:
    for name in TENANT_TABLES:
        column = METADATA.tables[name].c.tenant_id
        with suppress(DBAPIError):  # no right at all
            assert set(await app_database.read_of_key(B.hex[:12], Statement(select(column)))) <= {(B,)}
            assert not await app_database.read_of_key("unknown", Statement(select(column)))


async def test_the_dispatcher_sees_jobs_of_all_and_no_content(filled: Database) -> None:
    async with filled.dispatcher() as session:
        jobs = set(await session.scalars(select(METADATA.tables["jobs"].c.tenant_id)))
        assert {A, B} <= jobs
        hidden = ("documents", "chunks", "messages", "api_keys", "document_fields", "sources", "source_entries")
        for name in (*hidden, "source_runs"):
            assert await session.scalar(select(func.count()).select_from(METADATA.tables[name])) == 0


async def test_the_app_role_may_not_use_the_dispatchers_scope(filled: Database, app_database: Database) -> None:
    async with app_database.dispatcher() as session:
        assert await session.scalar(select(func.count()).select_from(METADATA.tables["jobs"])) == 0


def test_a_session_without_a_scope_does_not_work(own_database: DatabaseUrls) -> None:
    engine = create_engine(own_database.app)
    with pytest.raises(Misconfigured), ScopedSession(bind=engine) as session:
        session.execute(text("SELECT 1"))
    engine.dispose()


async def test_nothing_of_a_tenant_stays_on_a_pooled_connection(filled: Database, own_database: DatabaseUrls) -> None:
    """One connection, three kinds of users in turns, some of which fail in the middle."""
    single = Database(own_database.app, DatabaseSettings(pool_size=1))
    documents = METADATA.tables["documents"]
    for turn in range(150):
        tenant = (A, B)[turn % 2]
        async with single.tenant(tenant) as session:
            assert set(await session.scalars(select(documents.c.tenant_id))) == {tenant}
            if turn % 3 == 0:
                with pytest.raises(ProgrammingError):
                    await session.execute(text("SELECT nonsense"))
        async with single.admin() as session:
            assert await session.scalar(select(func.count()).select_from(documents)) == 0
    await single.aclose()


@pytest.mark.parametrize("role", ["superuser", "owner"])
async def test_a_role_that_bypasses_row_level_security_is_refused(own_database: DatabaseUrls, role: str) -> None:
    database = Database(getattr(own_database, role), DatabaseSettings())
    with pytest.raises(Misconfigured, match="tessera_app"):
        await check_postgres(database, HEAD)
    await database.aclose()


async def test_the_service_roles_are_accepted(app_database: Database, worker_database: Database) -> None:
    for database in (app_database, worker_database):
        assert (await check_postgres(database, HEAD)).revision == HEAD


async def test_a_database_that_is_away_is_unavailable(own_database: DatabaseUrls) -> None:
    nobody = make_url(own_database.app).set(port=1).render_as_string(hide_password=False)
    away = Database(nobody, DatabaseSettings(connect_timeout_s=1))
    with pytest.raises(Unavailable):
        await away.ping()
    await away.aclose()


async def test_the_writer_lock_excludes_other_processes_and_ends_with_its_connection(
    own_database: DatabaseUrls,
) -> None:
    one, two = (Database(own_database.worker, DatabaseSettings()) for _ in range(2))
    order: list[str] = []

    async def second() -> None:
        async with two.writer_lock(A):
            order.append("second")

    async with one.writer_lock(A):
        waiting = asyncio.create_task(second())
        async with two.writer_lock(B):
            order.append("another tenant")
        await asyncio.sleep(0.2)
        order.append("first ends")
    await waiting
    assert order == ["another tenant", "first ends", "second"]
    await one.aclose()
    await two.aclose()
