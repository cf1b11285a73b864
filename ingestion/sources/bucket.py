"""The objects below a prefix of a bucket. A door to obstore, beside `ingestion/objects.py`.

obstore looks into the environment for what it is not told, where the service's own keys and address may stand: so
everything is told, and a bucket without credentials is read without a signature. Its connections do not pass the guard;
the addresses are those of the clouds, or of the stores that the operator names.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from ingestion.sources.config import ObjectCredentials, ObjectsConfig, service_account
from ingestion.sources.entries import Entry, Known, Read, too_large
from ingestion.sources.files import file_entry, is_wanted
from ingestion.sources.settings import SourceSettings
from tenants.errors import SourceFailed, SourceUnavailable

_BLOCK = 1 << 18
_NOT_FOUND = re.compile(r"status code: 404|\b404 Not Found|NoSuchBucket")
_FORBIDDEN = re.compile(r"status code: 40[13]|\b401 Unauthorized|\b403 Forbidden|AccessDenied|SignatureDoesNotMatch")


def open_bucket(config: ObjectsConfig, settings: SourceSettings, own: str) -> ObjectStore:
    """Return the store; `own` is the address where the service keeps its originals.

    Raises:
        SourceFailed: it is the service's own bucket, or the endpoint is not allowed.
    """
    if (config.scheme, config.bucket) == (urlsplit(own).scheme.replace("s3a", "s3"), urlsplit(own).netloc):
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
    if config.scheme == "s3":
        return _s3(config, secrets, patience)
    if config.scheme == "gs":
        key = secrets.get("service_account_key")
        signed: Any = {"service_account_key": service_account(key)} if key else {"skip_signature": True}
        return GCSStore(config.bucket, config=signed, **patience)
    account: Any = {"account_name": str(config.account), "endpoint": f"https://{config.account}.blob.core.windows.net"}
    if "sas_token" in secrets:
        account["sas_key"] = secrets["sas_token"]
    elif "account_key" in secrets:
        account["account_key"] = secrets["account_key"]
    else:
        account["skip_signature"] = True
    return AzureStore(config.bucket, config=account, **patience)


def _s3(config: ObjectsConfig, secrets: dict[str, str], patience: dict[str, Any]) -> S3Store:
    told: Any = {
        "region": config.region,
        "endpoint": config.endpoint or f"https://s3.{config.region}.amazonaws.com",
        "virtual_hosted_style_request": False,
        "imdsv1_fallback": False,
    }
    if "access_key_id" not in secrets or "secret_access_key" not in secrets:
        return S3Store(config.bucket, config=told | {"skip_signature": True}, **patience)
    names = ("access_key_id", "secret_access_key", "session_token")
    signed = {name: secrets[name] for name in names if name in secrets}
    return S3Store(config.bucket, config=told | signed, **patience)


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
        except (BaseError, OSError) as error:
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
        except (BaseError, OSError) as error:
            raise _failed(error, repr(entry.place)) from error
        return Read(entry.place.rsplit("/", 1)[-1], "")

    async def aclose(self) -> None:
        """Nothing of its own is open."""


def _failed(error: Exception, what: str) -> SourceFailed:
    """Name what went wrong; a listing that is refused comes as a general error, which only its text tells apart."""
    text = str(error)
    if isinstance(error, NotFoundError | FileNotFoundError) or _NOT_FOUND.search(text):
        return SourceFailed(f"{what} is not there.", code="source_not_found")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or _FORBIDDEN.search(text):
        return SourceFailed(f"{what} may not be read with these credentials.", code="source_forbidden")
    # The library's own words may quote the request.
    return SourceUnavailable(f"{what} cannot be read ({type(error).__name__}).", code="source_unreachable")
