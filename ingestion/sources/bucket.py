"""The objects below a prefix of a bucket. A door to obstore, beside `ingestion/objects.py`.

obstore looks into the environment for what it is not told, where the service's own keys and address may stand. So
everything is told, also which credentials are meant; a bucket without credentials is read without a signature; and the
worker forgets the variables of its own store once that is open (`forget_own_store`). The connections do not pass the
guard; the addresses are those of the clouds, or of the stores that the operator names.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from typing import Any, BinaryIO

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from ingestion.object_stores import Failure, is_missing, is_refused, static_keys
from ingestion.sources.config import ObjectCredentials, ObjectsConfig, service_account
from ingestion.sources.entries import Entry, Known, Read, too_large
from ingestion.sources.files import file_entry, is_wanted
from ingestion.sources.origin import is_own
from ingestion.sources.settings import SourceSettings
from tenants.errors import SourceFailed, SourceUnavailable

_BLOCK = 1 << 18


def open_bucket(config: ObjectsConfig, settings: SourceSettings, own: str) -> ObjectStore:
    """Return the store; `own` is the address where the service keeps its originals.

    Raises:
        SourceFailed: it is the service's own bucket, the endpoint is not allowed, or the credentials are none.
    """
    if is_own(config, own):
        raise SourceFailed("The bucket is the service's own.", code="source_address_refused")
    if config.endpoint is not None and config.endpoint.rstrip("/") not in settings.endpoints:
        raise SourceFailed("The endpoint is not one that the operator allows.", code="source_address_refused")
    given = config.credentials or ObjectCredentials()
    secrets = {
        name: value.get_secret_value()
        for name in ObjectCredentials.model_fields
        if (value := getattr(given, name)) is not None
    }
    patience: dict[str, Any] = {
        "client_options": {
            "allow_http": bool(config.endpoint and config.endpoint.startswith("http://")),
            "connect_timeout": timedelta(seconds=settings.connect_timeout_s),
            "timeout": timedelta(seconds=settings.total_timeout_s),
        },
        "retry_config": {"max_retries": 2, "retry_timeout": timedelta(seconds=30)},
    }
    try:
        return _OPEN[config.scheme](config, secrets, patience)
    except BaseError as error:
        # The library's own words may quote the key.
        raise SourceFailed(
            "The credentials are not of the form that the store takes.", code="source_forbidden"
        ) from error


def _s3(config: ObjectsConfig, secrets: dict[str, str], patience: dict[str, Any]) -> S3Store:
    told: Any = {
        "region": config.region,
        "endpoint": config.endpoint or f"https://s3.{config.region}.amazonaws.com",
        "virtual_hosted_style_request": False,
        "imdsv1_fallback": False,
    }
    if "access_key_id" not in secrets or "secret_access_key" not in secrets:
        return S3Store(config.bucket, config=told | _UNSIGNED, **patience)
    keys = static_keys(secrets["access_key_id"], secrets["secret_access_key"], secrets.get("session_token"))
    signed = told | {"skip_signature": False}
    return S3Store(config.bucket, config=signed, credential_provider=keys, **patience)


def _google(config: ObjectsConfig, secrets: dict[str, str], patience: dict[str, Any]) -> GCSStore:
    key = secrets.get("service_account_key")
    signed: Any = {"service_account_key": service_account(key), "skip_signature": False} if key else _UNSIGNED
    return GCSStore(config.bucket, config=signed, **patience)


def _azure(config: ObjectsConfig, secrets: dict[str, str], patience: dict[str, Any]) -> AzureStore:
    told: Any = {"account_name": str(config.account), "endpoint": f"https://{config.account}.blob.core.windows.net"}
    # The type goes before whatever else the environment has.
    if "sas_token" in secrets:
        told |= {"sas_key": secrets["sas_token"], "credential_type": "sas_token", "skip_signature": False}
    elif "account_key" in secrets:
        told |= {"account_key": secrets["account_key"], "credential_type": "access_key", "skip_signature": False}
    else:
        told |= _UNSIGNED
    return AzureStore(config.bucket, config=told, **patience)


_UNSIGNED: Any = {"skip_signature": True}
_OPEN: dict[str, Callable[[ObjectsConfig, dict[str, str], dict[str, Any]], ObjectStore]] = {
    "s3": _s3,
    "gs": _google,
    "az": _azure,
}


class BucketSource:
    """A connector (see `entries.Connector`)."""

    def __init__(self, config: ObjectsConfig, store: ObjectStore, max_bytes: int) -> None:
        self._config, self._store, self._max_bytes = config, store, max_bytes
        self.cursor: dict[str, Any] = {}
        self.complete = True

    async def batches(self) -> AsyncGenerator[list[Entry], None]:
        """Yield the objects, a page of the listing at a time."""
        prefix = self._config.path
        try:
            async for page in obstore.list(self._store, prefix=prefix or None):
                names = [(meta, meta["path"].removeprefix(prefix).lstrip("/")) for meta in page]
                yield [
                    file_entry(name, meta["e_tag"] or f"{meta['last_modified']}:{meta['size']}")
                    for meta, name in names
                    if name and is_wanted(name, self._config.include)
                ]
        except Failure as error:
            raise _failed(error, "The bucket") from error

    async def read(self, entry: Entry, known: Known | None, target: BinaryIO) -> Read | None:
        """Copy an object."""
        path = "/".join(part for part in (self._config.path, entry.place) if part)
        try:
            found = await obstore.get_async(self._store, path)
            if found.meta["size"] > self._max_bytes:
                raise too_large(repr(entry.place), self._max_bytes)
            async for block in found.stream(min_chunk_size=_BLOCK):
                await asyncio.to_thread(target.write, bytes(block))
        except Failure as error:
            raise _failed(error, repr(entry.place)) from error
        return Read(entry.place.rsplit("/", 1)[-1], "")

    async def aclose(self) -> None:
        """Nothing of its own is open."""


def _failed(error: Exception, what: str) -> SourceFailed:
    """Name what went wrong."""
    if is_missing(error):
        return SourceFailed(f"{what} is not there.", code="source_not_found")
    if is_refused(error):
        return SourceFailed(f"{what} may not be read with these credentials.", code="source_forbidden")
    # The library's own words may quote the request.
    return SourceUnavailable(f"{what} cannot be read ({type(error).__name__}).", code="source_unreachable")
