"""What lies in the stores and belongs to no tenant is found by a check of the whole installation, and removed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import httpx

from shards.lexical import ChunkText
from shards.names import Space, collection_prefix, lexical_name, tenant_database
from shards.vectors import ChunkVector
from tests.conftest import TenantAccess, new_tenant
from tests.faults.own_stack import own_stack
from tests.ingestion.damage import Stores, fsck, opened, unit_vector

if TYPE_CHECKING:
    import pytest

EXPECTED = {"vectors": {"orphan": 4, "wrong_tenant": 3}, "lexical": {"orphan": 1}, "objects": {"orphan": 2}}


async def test_what_belongs_to_no_tenant_is_found_and_removed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """In a stack of its own: every tenant of it is checked, again and again."""
    with own_stack(tmp_path_factory.mktemp("foreign") / "data") as stack:
        headers = {"Authorization": f"Bearer {stack.admin_key}"}
        async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=60) as admin, opened(stack) as stores:
            tenant = await new_tenant(admin, "tenant")
            async with tenant.client:
                await tenant.upload("The harbour master keeps a log.", external_id="log")
                root = Path(stack.env["TESSERA_OBJECTS_URL"].removeprefix("file://"))
                await strew_and_sweep(admin, tenant, stores, root)


async def strew_and_sweep(admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores, objects: Path) -> None:
    live = (await stores.live(tenant)).space
    nobody = uuid4()
    own, isolated = Space(nobody, 1, 8), Space(nobody, 2, 8, "isolated")
    for space in (own, isolated):
        await stores.vectors.create(space, cells=1)
    lodger = Space(nobody, 1, live.dim, "pooled", live.bucket)
    foreign = Space(UUID(tenant.id), 99, live.dim, "pooled", live.bucket)
    for space, count in ((lodger, 2), (foreign, 3)):
        rows = [ChunkVector(uuid4(), 1, unit_vector(live.dim)) for _ in range(count)]
        await stores.vectors.insert(space, {0: rows})
    await stores.lexical.insert(lexical_name(nobody), [ChunkText(uuid4(), 1, "", "nobody")])
    folder = objects / "tenants" / str(nobody) / str(uuid4())
    folder.mkdir(parents=True)
    for name in ("1", "2"):
        (folder / name).write_bytes(b"nobody's")

    seen = await fsck(admin)
    assert seen["differences"] == EXPECTED, seen
    mended = await fsck(admin, repair=True)
    assert (mended["differences"], mended["left"]) == (EXPECTED, {}), mended
    assert (await fsck(admin))["differences"] == {}
    names = {place.collection for place in await stores.vectors.places()}
    assert not any(name.startswith(collection_prefix(nobody)) for name in names)
    assert tenant_database(nobody) not in {place.database for place in await stores.vectors.places()}
    assert lexical_name(nobody) not in await stores.lexical.indexes()
    assert str(nobody) not in await stores.objects.tenants()
    assert (await tenant.search("harbour log", k=1))[0]["external_id"] == "log", "whose rows lie beside it"
