"""Buckets: what is listed and read, what a store may be told, and how its refusals are named."""

from __future__ import annotations

import base64
import io
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from obstore.exceptions import GenericError
from obstore.store import MemoryStore, ObjectStore

from ingestion.sources.bucket import BucketSource, open_bucket
from ingestion.sources.config import ObjectsConfig, service_account
from ingestion.sources.settings import SourceSettings, forget_own_store
from tenants.errors import SourceFailed

if TYPE_CHECKING:
    from tests.ingestion.sources.site import Site


def bucket(**values: object) -> ObjectsConfig:
    return ObjectsConfig.model_validate({"url": "s3://bucket/docs"} | values)


def azure(**credentials: str) -> ObjectsConfig:
    return bucket(url="az://cont/x", account="acct12", credentials=credentials or None)


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("s3://bucket/docs", "s3://bucket/originals"),
        ("s3://bucket/docs", "s3a://bucket"),
        ("s3://bucket", "https://s3.eu-west-1.amazonaws.com/bucket/originals"),
        ("s3://bucket", "https://bucket.s3.eu-west-1.amazonaws.com/originals"),
        ("s3://bucket", "https://0123.r2.cloudflarestorage.com/bucket"),
        ("gs://bucket", "gs://bucket/originals"),
        ("az://bucket", "az://bucket/originals"),
        ("az://bucket", "azure://bucket"),
        ("az://bucket", "abfs://bucket/originals"),
        ("az://bucket", "abfss://bucket@acct12.dfs.core.windows.net/originals"),
        ("az://bucket", "https://acct12.blob.core.windows.net/bucket/originals"),
    ],
)
def test_the_services_own_bucket_is_refused_however_it_is_spelled(url: str, own: str) -> None:
    with pytest.raises(SourceFailed) as caught:
        open_bucket(bucket(url=url, account="acct12"), SourceSettings(), own)
    assert caught.value.code == "source_address_refused"
    other = bucket(url=url.replace("bucket", "another"), account="acct12")
    assert open_bucket(other, SourceSettings(), own)


def test_a_container_of_the_same_name_in_another_account_is_another() -> None:
    config = bucket(url="az://bucket", account="other1")
    assert open_bucket(config, SourceSettings(), "abfss://bucket@acct12.dfs.core.windows.net/originals")


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
    keys = {"access_key_id": "THEIRS", "secret_access_key": "secret"}
    signed = signed_by(open_bucket(bucket(credentials=keys), SourceSettings(), "file:///srv"))
    assert "THEIRS" in signed
    assert "own-token" not in signed
    keys |= {"session_token": "their-token"}
    assert "their-token" in signed_by(open_bucket(bucket(credentials=keys), SourceSettings(), "file:///srv"))


def test_the_operators_key_of_azure_signs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    other = base64.b64encode(b"theirs").decode()
    before = signed_by(open_bucket(azure(account_key=other), SourceSettings(), "file:///srv"))
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(b"own").decode())
    monkeypatch.setenv("AZURE_STORAGE_TOKEN", "own-token")
    monkeypatch.setenv("AZURE_SKIP_SIGNATURE", "true")
    with pytest.raises(GenericError, match="with SAS tokens auth"):
        signed_by(open_bucket(azure(sas_token="sv=2020&sig=T"), SourceSettings(), "file:///srv"))
    with pytest.raises(GenericError, match="skipping signatures"):
        signed_by(open_bucket(azure(), SourceSettings(), "file:///srv"))
    after = signed_by(open_bucket(azure(account_key=other), SourceSettings(), "file:///srv"))
    assert "sig=" in before
    assert "own-token" not in after


def test_a_worker_forgets_what_its_own_store_was_opened_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Google's variables cannot be overruled: a key beside a path is an error, and a file is opened in any case."""
    names = ("GOOGLE_SERVICE_ACCOUNT", "SERVICE_ACCOUNT", "GOOGLE_APPLICATION_CREDENTIALS")
    for name in names:
        monkeypatch.setenv(name, str(tmp_path / "own.json"))
    monkeypatch.setenv("AWS_SSE_CUSTOMER_KEY_BASE64", "own")
    forget_own_store()
    assert not {*names, "AWS_SSE_CUSTOMER_KEY_BASE64"} & set(os.environ)
    key = {"private_key": private_key(), "private_key_id": "1", "client_email": "them@example.com"}
    theirs = bucket(url="gs://bucket", credentials={"service_account_key": json.dumps(key)})
    assert "them%40example.com" in signed_by(open_bucket(theirs, SourceSettings(), "file:///srv"))
    assert open_bucket(bucket(url="gs://bucket"), SourceSettings(), "file:///srv")


@pytest.mark.parametrize(
    ("url", "credentials"),
    [
        ("gs://bucket", {"service_account_key": json.dumps({"private_key": "secret", "client_email": "e"})}),
        ("az://bucket", {"account_key": "no base64: secret"}),
        ("az://bucket", {"sas_token": "secret"}),
    ],
)
def test_credentials_that_are_none_are_named(url: str, credentials: dict[str, str]) -> None:
    config = bucket(url=url, account="acct12", credentials=credentials)
    with pytest.raises(SourceFailed) as caught:
        open_bucket(config, SourceSettings(), "file:///srv")
    assert caught.value.code == "source_forbidden"
    assert "secret" not in caught.value.detail


def signed_by(store: ObjectStore) -> str:
    """Return an address that a store signed with its credentials."""
    return obstore.sign(store, "GET", "x", timedelta(minutes=1))  # type: ignore[arg-type]  # only clouds sign


def private_key() -> str:
    """Return a new key as a service account has one."""
    key = rsa.generate_private_key(65537, 2048)
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(*pem).decode()


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
