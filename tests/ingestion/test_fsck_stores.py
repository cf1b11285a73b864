"""Damage done to the lexical index, the originals and Postgres: found exactly, mended, and nothing is left."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from ingestion.fsck import lexical as lexical_check
from ingestion.fsck.check import Check, SwitchedError
from ingestion.objects import object_key
from shards.lexical import ChunkText
from shards.names import lexical_name
from tests.ingestion.damage import Stores, finds, fsck, index_folder, opened

if TYPE_CHECKING:
    import httpx

    from service.local.state import StackState
    from tests.conftest import TenantAccess

NOTE = "# Harbour\n\nThe dredger works at night.\n\n# Quay\n\nQuay {n} takes ships of up to {n} metres."


@pytest.fixture(scope="module")
async def stores(stack: StackState) -> AsyncIterator[Stores]:
    async with opened(stack) as found:
        yield found


async def filled(tenant: TenantAccess, documents: int = 3) -> list[str]:
    made = []
    for n in range(1, documents + 1):
        metadata = f'{{"pier": {n}}}'
        one = await tenant.upload(NOTE.format(n=n), f"{n}.md", external_id=str(n), metadata=metadata)
        made.append(one["document"]["id"])
    return made


async def version_of(stores: Stores, tenant: TenantAccess, document_id: str) -> int:
    rows = await stores.sql(tenant, "SELECT active_version_no AS n FROM documents WHERE id = :d", d=document_id)
    number: int = rows[0].n
    return number


async def test_lexical_entries(admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores) -> None:
    documents = await filled(tenant)
    index = stores.index(tenant)
    version = await version_of(stores, tenant, documents[0])
    gone = await stores.chunks(tenant, documents[1])
    await stores.lexical.delete_chunks(index, gone)
    orphans = [ChunkText(uuid4(), 10**12 + n, "x", "y") for n in range(3)]
    await stores.lexical.insert(index, [*orphans, ChunkText(uuid4(), version, "x", "y")])
    await finds(admin, tenant, {"lexical": {"missing": 2, "orphan": 3, "stale": 1}})
    hits = await tenant.search("quay 2 metres", k=1)
    assert (hits[0]["external_id"], hits[0]["ranks"]["bm25"]) == ("2", 1)


async def test_the_words_of_an_entry_are_another_chunks(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores
) -> None:
    documents = await filled(tenant, 2)
    [chunk_id, *_] = await stores.chunks(tenant, documents[0])
    version = await version_of(stores, tenant, documents[0])
    await stores.lexical.insert(stores.index(tenant), [ChunkText(chunk_id, version, "1", "zeppelin")])
    assert (await fsck(admin, tenant))["total"] == 0, "its key is right"
    await finds(admin, tenant, {"lexical": {"text": 1}})
    assert await stores.lexical.search(stores.index(tenant), "zeppelin", k=1, scope=None) == []


async def test_an_index_that_is_not_read_any_more_counts_for_nothing(tenant: TenantAccess, stores: Stores) -> None:
    """The tenant went over to another edition of its chunks while the old one's index was being checked."""
    [document] = await filled(tenant, 1)
    runtime = SimpleNamespace(database=stores.database, indexes=SimpleNamespace(lexical=stores.lexical))
    check = Check(runtime, UUID(tenant.id), repair=True)  # type: ignore[arg-type]
    former = lexical_name(UUID(tenant.id), 7)
    with pytest.raises(SwitchedError):
        await lexical_check._look_again(check, former, await stores.chunks(tenant, document))
    assert check.report.total == 0


@pytest.mark.parametrize("how", ["dropped", "damaged"])
async def test_an_index_that_cannot_be_read_is_made_again(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores, stack: StackState, how: str
) -> None:
    await filled(tenant)
    if how == "dropped":
        await stores.lexical.drop(stores.index(tenant))
        await finds(admin, tenant, {"lexical": {"missing": 6}})
    else:
        folder = index_folder(stack, stores.index(tenant))
        (folder / "meta.json").write_text("{")
        assert (await fsck(admin, tenant))["differences"] == {"lexical": {"damaged": 1}}
        mended = await fsck(admin, tenant, repair=True)
        assert (mended["differences"], mended["left"]) == ({"lexical": {"damaged": 1, "missing": 6}}, {})
        assert (await fsck(admin, tenant, deep=True))["total"] == 0
    assert (await tenant.search("quay 3 metres", k=1))[0]["ranks"]["bm25"] == 1


async def test_originals(admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores, stack: StackState) -> None:
    documents = await filled(tenant)
    folder = Path(stack.env["TESSERA_OBJECTS_URL"].removeprefix("file://"))
    tenant_id = UUID(tenant.id)
    paths = [folder / object_key(tenant_id, UUID(one), 1) for one in documents]
    await stores.objects.delete([object_key(tenant_id, UUID(documents[0]), 1)])
    same_size = bytearray(paths[1].read_bytes())
    same_size[-2] ^= 1
    paths[1].write_bytes(same_size)
    paths[2].write_bytes(b"short")
    young, old = (object_key(tenant_id, UUID(documents[0]), 7), object_key(tenant_id, uuid4(), 1))
    for key, age_s in ((young, 0), (old, 7200)):
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(b"left over")
        now = (folder / key).stat().st_mtime
        os.utime(folder / key, (now - age_s, now - age_s))

    shallow = await fsck(admin, tenant)
    assert shallow["differences"] == {"objects": {"checksum": 1, "missing": 1, "orphan": 1}}, shallow
    assert shallow["checked"]["young_objects"] == 1
    found = await fsck(admin, tenant, deep=True, repair=True)
    assert found["differences"] == {"objects": {"checksum": 2, "missing": 1, "orphan": 1}}, found
    assert found["left"] == {"objects": {"checksum": 2, "missing": 1}}, "what was uploaded cannot be made again"
    assert not (folder / old).exists()
    assert (folder / young).exists()
    rows = await stores.sql(tenant, "SELECT external_id, original FROM documents ORDER BY 1")
    assert [tuple(row) for row in rows] == [("1", "missing"), ("2", "damaged"), ("3", "damaged")]

    for n in (1, 2, 3):  # the same content again is taken, because what is there is not sound
        await tenant.upload(NOTE.format(n=n), f"{n}.md", external_id=str(n), metadata=f'{{"pier": {n}}}')
    for job in (await tenant.client.get("/v1/jobs", params={"limit": 100})).json()["items"]:
        await tenant.job(job["id"])
    assert (await fsck(admin, tenant, deep=True))["total"] == 0
    assert (await tenant.client.get(f"/v1/documents/{documents[0]}/content")).text == NOTE.format(n=1)


BREACHES = {
    "active version": (
        "UPDATE documents SET active_version = NULL WHERE external_id = '1'",
        {"postgres": {"active_version": 1}},
    ),
    "active number": (
        "UPDATE documents SET active_version_no = active_version_no + 1000000 WHERE external_id = '1'",
        {"postgres": {"active_version": 1, "catalog": 1}},
    ),
    "fields": ("UPDATE document_fields SET number_value = 77 WHERE number_value = 2", {"postgres": {"fields": 1}}),
    "no fields": ("DELETE FROM document_fields WHERE number_value = 2", {"postgres": {"fields": 1}}),
    "micro-cells": ("UPDATE micro_cells SET rows = rows + 3", {"postgres": {"catalog": 1}}),
    "generation": ("UPDATE index_generations SET rows = 0", {"postgres": {"catalog": 1}}),
    "replaced": (
        "INSERT INTO document_versions (tenant_id, document_id, version, title, title_given, filename, content_type,"
        " format, size_bytes, content_sha256, object_key, metadata, state) SELECT tenant_id, document_id, 2, title,"
        " title_given, filename, content_type, format, size_bytes, content_sha256, left(object_key, -1) || '2',"
        " metadata, 'replaced' FROM document_versions LIMIT 1",
        {"postgres": {"job": 1}, "objects": {"missing": 1}},
    ),
    "pending": (
        "UPDATE document_versions v SET state = 'pending' FROM documents d WHERE d.id = v.document_id"
        " AND d.external_id = '1'",
        {"postgres": {"active_version": 1, "job": 1, "catalog": 1}},
    ),
    "deleted": ("UPDATE documents SET deleted_at = now() WHERE external_id = '1'", {"postgres": {"job": 1}}),
}


@pytest.mark.parametrize("name", BREACHES)
async def test_postgres_against_itself(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores, name: str
) -> None:
    await filled(tenant)
    statement, expected = BREACHES[name]
    await stores.sql(tenant, statement)
    seen = (await fsck(admin, tenant))["differences"]
    assert {store: seen.get(store) for store in expected} == expected, seen
    mended = await fsck(admin, tenant, repair=True)
    assert mended["left"] == {}, mended
    for job in (await tenant.client.get("/v1/jobs", params={"limit": 100})).json()["items"]:
        await tenant.job(job["id"])
    assert (await fsck(admin, tenant, deep=True))["total"] == 0
    shown = {hit["external_id"] for hit in await tenant.search("quay metres", k=10)}
    assert shown == ({"2", "3"} if name == "deleted" else {"1", "2", "3"})
    filtered = await tenant.search("quay metres", k=10, filter={"pier": {"eq": 2}})
    assert {hit["external_id"] for hit in filtered} == {"2"}


async def test_chunks_that_are_gone_are_read_again_from_the_original(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores
) -> None:
    documents = await filled(tenant)
    before = await stores.chunks(tenant, documents[0])
    await stores.sql(tenant, "DELETE FROM chunks WHERE id = :one", one=before[1])
    seen = (await fsck(admin, tenant))["differences"]
    assert seen["postgres"] == {"catalog": 1, "chunk_count": 1}, seen
    mended = await fsck(admin, tenant, repair=True)
    assert mended["left"] == {}, mended
    for job in (await tenant.client.get("/v1/jobs", params={"limit": 100})).json()["items"]:
        await tenant.job(job["id"])
    assert sorted(await stores.chunks(tenant, documents[0])) == sorted(before)
    assert (await fsck(admin, tenant, deep=True))["total"] == 0


@pytest.mark.parametrize("another", [True, False])
async def test_a_lost_live_generation_takes_no_chunk_with_it(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores, another: bool
) -> None:
    """The chunks are made an index of again, and are all there is of a document whose original is lost too."""
    documents = await filled(tenant)
    chunks = "SELECT id, edition, document_id, text FROM chunks ORDER BY id"
    before = await stores.sql(tenant, chunks)
    if another:
        gone = (
            'INSERT INTO index_generations SELECT (jsonb_populate_record(g, \'{"generation": 2, "edition": 2,'
            ' "state": "gone"}\')).* FROM index_generations g WHERE g.state = \'live\''
        )
        await stores.sql(tenant, gone)
    await stores.sql(tenant, "DELETE FROM index_generations WHERE state = 'live'")
    await stores.objects.delete([object_key(UUID(tenant.id), UUID(documents[0]), 1)])
    seen = (await fsck(admin, tenant))["differences"]
    assert seen["postgres"] == {"catalog": 3}, seen
    mended = await fsck(admin, tenant, repair=True)
    assert mended["left"] == {"objects": {"missing": 1}}, mended
    assert await stores.sql(tenant, chunks) == before
    assert (await stores.live(tenant)).edition == 1
    hits = await tenant.search("Which ships does quay 1 take?", k=1)
    assert (hits[0]["external_id"], hits[0]["ranks"]["ann"], hits[0]["ranks"]["bm25"]) == ("1", 1, 1)
    assert (await fsck(admin, tenant, deep=True))["left"] == {"objects": {"missing": 1}}


async def test_places_that_are_gone_are_made_again(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores
) -> None:
    documents = await filled(tenant)
    version = await version_of(stores, tenant, documents[0])
    await stores.sql(tenant, "DELETE FROM chunk_cells WHERE version_no = :v", v=version)
    seen = (await fsck(admin, tenant))["differences"]
    assert seen == {"postgres": {"catalog": 2}}, seen
    assert (await fsck(admin, tenant, repair=True))["left"] == {}
    assert (await fsck(admin, tenant, deep=True))["total"] == 0
    assert len(await stores.rows(tenant)) == 6
