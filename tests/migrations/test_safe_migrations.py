"""Migrations from 0013 on can run while the service does: what they say to the server is looked at, statement by
statement, and what they do to tables with rows. Each rule is shown a small sin first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from alembic import command
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Engine, event

from migrations.head import HEAD
from migrations.run import alembic_config
from tenants.roles import OWNER

if TYPE_CHECKING:
    from tests.clusters import Cluster

FIRST = "0013"
"""Those before had no table with rows at any installation that could be updated while it is used."""
_TABLE = r"(?:ONLY )?(?:public\.)?\"?(\w+)\"?"
_RULES: tuple[tuple[str, str], ...] = (
    (
        rf"CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY).*? ON {_TABLE}",
        "indexes are made CONCURRENTLY, outside of the transaction, with no other step in the same migration",
    ),
    (r"DROP INDEX (?!CONCURRENTLY)()", "indexes are dropped CONCURRENTLY, in the same way"),
    (
        rf"ALTER TABLE {_TABLE} ADD COLUMN (?=.*NOT NULL)(?!.*DEFAULT)",
        "a column that must not be empty has a default, or old code cannot insert",
    ),
    (
        rf"ALTER TABLE {_TABLE} ADD COLUMN .*(?:DEFAULT (?:gen_random|clock_t|random)|SERIAL|IDENTITY|STORED)",
        "a default that differs by row rewrites the table",
    ),
    (rf"ALTER TABLE {_TABLE} ALTER COLUMN \w+ (?:SET DATA )?TYPE", "another type rewrites the table: add a column"),
    (rf"ALTER TABLE {_TABLE} ALTER COLUMN \w+ SET NOT NULL", "SET NOT NULL reads the whole table: CHECK ... NOT VALID"),
    (
        rf"ALTER TABLE {_TABLE} ADD (?:CONSTRAINT \w+ )?(?:FOREIGN KEY|CHECK)(?!.*NOT VALID)",
        "a constraint is added NOT VALID and validated later",
    ),
    (rf"ALTER TABLE {_TABLE} ADD (?:CONSTRAINT \w+ )?(?:PRIMARY KEY|UNIQUE)(?!.*USING INDEX)", "... USING INDEX"),
    (rf"ALTER TABLE {_TABLE} RENAME", "old code knows the old name: add, fill, drop in a later release"),
    (rf"(?:VACUUM FULL|CLUSTER|LOCK TABLE|REINDEX (?!.*CONCURRENTLY)|TRUNCATE)() ?{_TABLE}?", "locks everybody out"),
    (rf"UPDATE {_TABLE} ", "rows are filled by jobs in small transactions, not in a migration"),
)
_CONTRACTS = re.compile(rf"DROP TABLE|ALTER TABLE {_TABLE} DROP COLUMN", re.IGNORECASE)


def sins(statements: Sequence[str], *, needs: str | None = None) -> Iterator[str]:
    """Yield what is wrong with the statements of one migration. What it has made itself it may treat as it likes."""
    made = {match[1] for one in statements if (match := re.match(rf"\s*CREATE TABLE {_TABLE}", one))}
    for one in statements:
        said = " ".join(one.split())
        for pattern, why in _RULES:
            match = re.match(pattern, said, re.IGNORECASE)
            if match and match[1] not in made and not said.startswith("UPDATE alembic_version"):
                yield f"{said}: {why}"
        if _CONTRACTS.match(said) and needs is None:
            yield f"{said}: a migration that takes something away says in NEEDS which head the code must know"


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX a ON jobs (b)",
        "DROP INDEX a",
        "ALTER TABLE jobs ADD COLUMN a INTEGER NOT NULL",
        "ALTER TABLE jobs ADD COLUMN a UUID DEFAULT gen_random_uuid() NOT NULL",
        "ALTER TABLE jobs ALTER COLUMN a TYPE BIGINT",
        "ALTER TABLE jobs ALTER COLUMN a SET NOT NULL",
        "ALTER TABLE jobs ADD CONSTRAINT a FOREIGN KEY (b) REFERENCES c (d)",
        "ALTER TABLE jobs ADD CONSTRAINT a CHECK (b > 0)",
        "ALTER TABLE jobs ADD PRIMARY KEY (a)",
        "ALTER TABLE jobs RENAME TO tasks",
        "LOCK TABLE jobs",
        "UPDATE jobs SET a = 1",
        "DROP TABLE jobs",
        "ALTER TABLE jobs DROP COLUMN a",
    ],
)
def test_a_sin_is_seen(statement: str) -> None:
    assert len(list(sins([statement]))) == 1


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE INDEX CONCURRENTLY a ON jobs (b)"],
        ["CREATE TABLE news (a int)", "CREATE INDEX a ON news (a)", "ALTER TABLE news ADD CHECK (a > 0)"],
        ["ALTER TABLE jobs ADD COLUMN a INTEGER"],
        ["ALTER TABLE jobs ADD COLUMN a INTEGER DEFAULT 1 NOT NULL"],
        ["ALTER TABLE jobs ADD CONSTRAINT a CHECK (b > 0) NOT VALID", "ALTER TABLE jobs VALIDATE CONSTRAINT a"],
        ["GRANT SELECT ON jobs TO tessera_app"],
    ],
)
def test_a_virtue_is_not_taken_for_a_sin(statements: list[str]) -> None:
    assert list(sins(statements)) == []


def test_the_head_that_is_found_without_alembic_is_alembics() -> None:
    assert ScriptDirectory.from_config(alembic_config("")).get_current_head() == HEAD


def revisions() -> list[Script]:
    script = ScriptDirectory.from_config(alembic_config(""))
    return list(reversed(list(script.walk_revisions())))


def test_every_migration_goes_up_down_and_up_over_rows_and_locks_nobody_out(any_postgres: Cluster) -> None:
    """One after the other, with rows in every table that there is at that point."""
    urls = any_postgres.prepared("updown")
    config, wrong = alembic_config(urls[OWNER]), []
    command.downgrade(config, "base")
    with psycopg.connect(any_postgres.superuser("updown"), autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")  # rows need not fit each other
        for script in revisions():
            with said_by_the_owner() as statements:
                command.upgrade(config, script.revision)
            if script.revision >= FIRST:
                wrong += sins(statements, needs=getattr(script.module, "NEEDS", None))
            fill(connection)
            full = tables(connection)
            command.downgrade(config, "-1")
            older = tables(connection)
            assert {name: rows for name, (rows, _) in older.items()} == {name: full[name][0] for name in older}
            command.upgrade(config, script.revision)
            if script.revision >= FIRST:
                rewritten = [name for name, (_, file) in older.items() if tables(connection)[name][1] != file]
                assert rewritten == [], f"{script.revision} rewrites tables"
    assert wrong == []


@contextmanager
def said_by_the_owner() -> Iterator[list[str]]:
    """Collect the statements of whatever SQLAlchemy runs meanwhile."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)


_COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, NULL) FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
WHERE n.nspname = 'public' AND c.relkind = 'r' AND c.relname <> 'alembic_version' AND a.attnum > 0
AND NOT a.attisdropped AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
"""
_VALUES = {"uuid": "'{uuid}'", "text": "'{uuid}'", "bytea": "''", "jsonb": "'{{}}'", "boolean": "true"}
_VALUES |= {"timestamp with time zone": "now()", "uuid[]": "'{{}}'", "integer[]": "'{{}}'", "text[]": "'{{}}'"}


def fill(connection: psycopg.Connection) -> None:
    """Insert a row into every table, of nothing but what must be there."""
    values: dict[str, dict[str, str]] = {}
    for table, column, kind in connection.execute(_COLUMNS).fetchall():
        values.setdefault(table, {})[column] = _VALUES.get(kind, "1").format(uuid=uuid4())
    for table, row in values.items():
        connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(row.values())})")


def tables(connection: psycopg.Connection) -> dict[str, tuple[int, int]]:
    """Return of each table how many rows it has and in which file they are."""
    query = "SELECT relname, relfilenode FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    found = {}
    for name, file in connection.execute(query).fetchall():
        if name != "alembic_version":
            [rows] = connection.execute(f"SELECT count(*) FROM {name}").fetchone() or [0]
            found[name] = (rows, file)
    return found
