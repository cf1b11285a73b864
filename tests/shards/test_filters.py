"""A filter must mean in Postgres what it says: compared with a plain Python reading of the grammar."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from ingestion.metadata import field_rows
from shards.filters import compile_filter, parse_filter, parse_time
from shards.models import Document, DocumentField, DocumentVersion
from tenants.errors import InvalidFilter
from tenants.models import Tenant

WORDS = ["red", "green", "Red", "", "2026-01-31", "2025-12-01", "it's", 'say "hi"', "50%", "漢字"]
KEYS = ["colour", "size", "tags", "draft", "due.date"]
SCALARS = st.one_of(
    st.sampled_from(WORDS),
    st.integers(-3, 3),
    st.booleans(),
    st.floats(-2, 2, allow_nan=False).map(lambda x: round(x, 1)),
)
VALUES = st.one_of(SCALARS, st.lists(st.sampled_from(WORDS), min_size=1, max_size=3))
METADATA = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4)


def leaf() -> st.SearchStrategy[dict[str, Any]]:
    ops = st.one_of(
        st.tuples(st.sampled_from(["eq", "ne"]), SCALARS),
        st.tuples(st.just("in"), st.lists(SCALARS, min_size=1, max_size=3)),
        st.tuples(st.sampled_from(["gt", "gte", "lt", "lte"]), st.one_of(st.sampled_from(WORDS), st.integers(-3, 3))),
        st.tuples(st.just("exists"), st.booleans()),
    )
    return st.builds(lambda field, op: {field: {op[0]: op[1]}}, st.sampled_from(KEYS), ops)


FILTERS = st.recursive(
    leaf(),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"and": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"or": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=5,
)


def matches(raw: dict[str, Any], metadata: dict[str, Any]) -> bool:
    verdicts = []
    for name, value in raw.items():
        if name == "and":
            verdicts.append(all(matches(part, metadata) for part in value))
        elif name == "or":
            verdicts.append(any(matches(part, metadata) for part in value))
        elif name == "not":
            verdicts.append(not matches(value, metadata))
        else:
            verdicts += [compare(op, wanted, metadata.get(name)) for op, wanted in value.items()]
    return all(verdicts)


def compare(op: str, wanted: Any, found: Any) -> bool:
    items = found if isinstance(found, list) else [] if found is None else [found]
    if op == "exists":
        return bool(items) == wanted
    if op == "ne":
        return not compare("eq", wanted, found)
    if op in ("eq", "in"):
        candidates = wanted if op == "in" else [wanted]
        return any(same(item, candidate) for item in items for candidate in candidates)
    return any(ordered(op, item, wanted) for item in items)


def same(a: Any, b: Any) -> bool:
    return isinstance(a, bool) == isinstance(b, bool) and isinstance(a, str) == isinstance(b, str) and a == b


def ordered(op: str, item: Any, wanted: Any) -> bool:
    if isinstance(item, bool) or isinstance(item, str) != isinstance(wanted, str):
        return False
    if isinstance(wanted, str) and (moment := parse_time(wanted)) is not None:
        item, wanted = parse_time(item), moment
        if item is None:
            return False
    elif isinstance(wanted, str):
        item, wanted = item.encode(), wanted.encode()
    return {"gt": item > wanted, "gte": item >= wanted, "lt": item < wanted, "lte": item <= wanted}[op]


async def store(session: Any, tenant_id: UUID, metadata: dict[str, Any]) -> UUID:
    document_id = uuid4()
    session.add(
        Document(
            tenant_id=tenant_id, id=document_id, title="t", state="active", source="upload", format="txt",
            doc_metadata=metadata, content_sha256=document_id.bytes, latest_version=1, active_version=1,
        )
    )  # fmt: skip
    await session.flush()
    session.add(
        DocumentVersion(
            tenant_id=tenant_id, document_id=document_id, version=1, title="t", title_given=True, filename="f",
            content_type="text/plain", format="txt", size_bytes=1, content_sha256=b"x", object_key="k",
            doc_metadata=metadata, state="active",
        )
    )  # fmt: skip
    await session.flush()
    rows = [{"tenant_id": tenant_id, "document_id": document_id, "version": 1, **row} for row in field_rows(metadata)]
    if rows:
        await session.execute(insert(DocumentField), rows)
    return document_id


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=FILTERS, metadatas=st.lists(METADATA, min_size=1, max_size=5))
async def test_postgres_reads_a_filter_as_its_grammar_says(
    app_database: Any, raw: dict[str, Any], metadatas: list[dict[str, Any]]
) -> None:
    tenant_id = uuid4()
    async with app_database.admin() as session:
        session.add(
            Tenant(id=tenant_id, slug=str(tenant_id), name="n", plan="p", state="active", placement="auto", settings={})
        )
        await session.commit()
    async with app_database.tenant(tenant_id) as session:
        ids = [await store(session, tenant_id, metadata) for metadata in metadatas]
        query = select(Document.id).where(compile_filter(parse_filter(raw)))
        found = set(await session.scalars(query))
        await session.rollback()
    assert found == {i for i, metadata in zip(ids, metadatas, strict=True) if matches(raw, metadata)}


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        ({"x": {"eq": 10**400}}, "filter.x.eq"),
        ({"x": {"gte": -(10**400)}}, "filter.x.gte"),
        ({}, "filter"),
        ({"and": []}, "filter.and"),
        ({"and": [{"x": {"eq": 1}}, {"y": {"like": "z"}}]}, "filter.and.1.y.like"),
        ({"x": 1}, "filter.x"),
        ({"x": {}}, "filter.x"),
        ({"x": {"eq": None}}, "filter.x.eq"),
        ({"x": {"eq": ["a"]}}, "filter.x.eq"),
        ({"x": {"in": "a"}}, "filter.x.in"),
        ({"x": {"in": ["a", {}]}}, "filter.x.in.1"),
        ({"x": {"gt": True}}, "filter.x.gt"),
        ({"x": {"exists": "yes"}}, "filter.x.exists"),
        ({"x y": {"eq": 1}}, "filter.x y"),
        ({"created_at": {"gte": "yesterday"}}, "filter.created_at.gte"),
        ({"title": {"eq": 3}}, "filter.title.eq"),
        ({"x": {"eq": "a\x00b"}}, "filter.x.eq"),
        ({"x": {"eq": "\ud800"}}, "filter.x.eq"),
        ({"x": {"in": ["a", "b\udfff"]}}, "filter.x.in.1"),
        ({"\ud800": {"eq": 1}}, "filter.\\ud800"),
        ({"x": {"in": list(range(501))}, "y": {"in": ["a"] * 500}}, "filter"),
        ({"x": {"eq": float("inf")}}, "filter.x.eq"),
        ({"x' OR 1=1 --": {"eq": 1}}, "filter.x' OR 1=1 --"),
    ],
)
def test_a_wrong_filter_is_pointed_at(raw: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidFilter) as raised:
        parse_filter(raw)
    assert [field.pointer for field in raised.value.fields] == [pointer]


def test_a_filter_has_a_bounded_depth_and_size() -> None:
    deep: dict[str, Any] = {"x": {"eq": 1}}
    for _ in range(20):
        deep = {"not": deep}
    with pytest.raises(InvalidFilter):
        parse_filter(deep)
    with pytest.raises(InvalidFilter):
        parse_filter({"or": [{"x": {"eq": i}} for i in range(100)]})


def test_a_long_list_and_other_conditions_fit_into_one_filter() -> None:
    parse_filter({"x": {"in": list(range(1000))}, "language": {"eq": "de"}})
    parse_filter({"or": [{"x": {"in": list(range(500))}}, {"not": {"y": {"in": list(range(500))}}}]})


def test_dates_without_a_zone_are_utc() -> None:
    assert parse_time("2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)
    assert parse_time("2026-01-31T09:00:00+02:00") == datetime(2026, 1, 31, 7, tzinfo=UTC)
    assert parse_time("20260131") is None
    assert parse_time("soon") is None
