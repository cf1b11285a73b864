"""Buckets: what is listed and read, what a store may be told, and how its refusals are named."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import obstore
import pytest
from obstore.store import MemoryStore

from ingestion.sources.bucket import BucketSource, open_bucket
from ingestion.sources.config import ObjectsConfig, service_account
from ingestion.sources.settings import SourceSettings
from tenants.errors import SourceFailed

if TYPE_CHECKING:
    from tests.ingestion.sources.site import Site


def bucket(**values: object) -> ObjectsConfig:
    return ObjectsConfig.model_validate({"url": "s3://bucket/docs"} | values)


def test_the_services_own_bucket_is_refused() -> None:
    with pytest.raises(SourceFailed) as caught:
        open_bucket(bucket(), SourceSettings(), "s3://bucket/originals")
    assert caught.value.code == "source_address_refused"


def test_nothing_of_the_environment_gets_into_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "OWN",
        "AWS_SECRET_ACCESS_KEY": "own-secret",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_SESSION_TOKEN": "own-token",
    }.items():
        monkeypatch.setenv(name, value)
    store = open_bucket(bucket(), SourceSettings(), "file:///srv")
    assert store.config["endpoint"] == "https://s3.us-east-1.amazonaws.com"  # type: ignore[union-attr]
    assert store.config["skip_signature"] == "true"  # type: ignore[union-attr]


def test_an_endpoint_is_one_that_the_operator_names() -> None:
    own = bucket(endpoint="http://10.0.0.1:9000/")
    with pytest.raises(SourceFailed):
        open_bucket(own, SourceSettings(), "file:///srv")
    assert open_bucket(own, SourceSettings(object_endpoints="https://a.example, http://10.0.0.1:9000"), "file:///srv")


def test_a_google_key_is_stripped_of_addresses() -> None:
    key = {"type": "service_account", "private_key": "k", "client_email": "e", "gcs_base_url": "http://10.0.0.1"}
    assert json.loads(service_account(json.dumps(key))) == {
        "type": "service_account",
        "private_key": "k",
        "client_email": "e",
    }
    with pytest.raises(SourceFailed):
        service_account("no json")


async def test_objects_below_a_prefix_are_read() -> None:
    store = MemoryStore()
    for path in ("docs/a.md", "docs/deep/b.txt", "docs/c.zzz", "docs/.hidden.md", "other/d.md"):
        await obstore.put_async(store, path, f"content of {path}".encode())
    source = BucketSource(bucket(), store, max_bytes=1000)
    entries = [entry async for batch in source.batches() for entry in batch]
    assert sorted(entry.key for entry in entries) == ["a.md", "deep/b.txt"]
    for entry in entries:
        found = await source.read(entry, None, (target := io.BytesIO()))
        assert found is not None
        assert target.getvalue().decode() == f"content of docs/{entry.key}"
    again = [entry async for batch in source.batches() for entry in batch]
    assert [entry.stamp for entry in again] == [entry.stamp for entry in entries]
    await obstore.put_async(store, "docs/a.md", b"other")
    changed = {entry.key: entry.stamp async for batch in source.batches() for entry in batch}
    assert changed["a.md"] not in [entry.stamp for entry in entries]


async def test_an_object_over_the_limit_is_refused() -> None:
    store = MemoryStore()
    await obstore.put_async(store, "docs/a.md", bytes(1001))
    source = BucketSource(bucket(), store, max_bytes=1000)
    [entry] = [entry async for batch in source.batches() for entry in batch]
    with pytest.raises(SourceFailed) as caught:
        await source.read(entry, None, io.BytesIO())
    assert caught.value.code == "source_too_large"


@pytest.mark.parametrize(("status", "code"), [(403, "source_forbidden"), (404, "source_not_found")])
async def test_a_refusal_of_the_store_is_named(site: Site, status: int, code: str) -> None:
    site.fail("/bucket?list-type=2&prefix=docs%2F", status)
    settings = SourceSettings(object_endpoints=site.url)
    source = BucketSource(bucket(endpoint=site.url), open_bucket(bucket(endpoint=site.url), settings, "file:///x"), 10)
    with pytest.raises(SourceFailed) as caught:
        [batch async for batch in source.batches()]
    assert caught.value.code == code
    assert site.url not in caught.value.detail
