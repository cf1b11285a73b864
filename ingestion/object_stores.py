"""Object stores as obstore opens them: the service's own by its settings; and what their errors mean."""

from __future__ import annotations

import errno
import ipaddress
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from obstore import parse_scheme
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, LocalStore, ObjectStore, S3Store

from shards.addresses import can_be_asked
from tenants.errors import Misconfigured
from tenants.settings import ObjectSettings
from tenants.urls import without_secrets

if TYPE_CHECKING:
    from obstore.store import S3Credential

_NOT_FOUND = re.compile(r"status code: 404|\b404 Not Found|NoSuchBucket|ContainerNotFound")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_OBJECT_CODES = {"NoSuchKey", "NoSuchVersion", "BlobNotFound"}


def _of_system(*numbers: int) -> str:
    """Return a pattern of these errors of the operating system."""
    return "|".join(rf"os error {number}\b" for number in numbers)


_FORBIDDEN = re.compile(
    r"status code: 40[13]|\b401 Unauthorized|\b403 Forbidden|AccessDenied|SignatureDoesNotMatch|"
    + _of_system(errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOTDIR)
)
_FULL = re.compile(
    r"status code: 507|QuotaExceeded|InsufficientStorage|InsufficientCapacity|StorageFull|"
    + _of_system(errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
)
_ELSEWHERE = re.compile(r"redirect without LOCATION|AuthorizationHeaderMalformed|PermanentRedirect")
_OF_THE_MACHINE = re.compile(r"/latest/(api/token|meta-data)|/computeMetadata/|/metadata/identity/")
"""Paths of the services that give an instance the keys of its role."""
_MESSAGE = re.compile(r"<Message>([^<]+)</Message>")
_ADDRESS = re.compile(r"https?://\S+")
_SAID_CHARACTERS = 300
Failure = BaseError, OSError
"""What obstore raises when a store does not do as it is told."""


def is_missing(error: Exception) -> bool:
    """Whether the object, or its bucket, is not there. A listing comes as a general error, told by its text alone."""
    return isinstance(error, NotFoundError | FileNotFoundError) or bool(_NOT_FOUND.search(_said(error)))


def is_object_missing(error: Exception) -> bool:
    """Whether the object is not there, in a bucket that is, as far as the store says what it misses."""
    if not isinstance(error, NotFoundError | FileNotFoundError):
        return False
    code = _CODE.search(_said(error))
    return code is None or code[1] in _OBJECT_CODES


def is_refused(error: Exception) -> bool:
    """Whether the store knows neither key nor right to do this."""
    refused = (PermissionDeniedError, UnauthenticatedError, PermissionError)
    return isinstance(error, refused) or bool(_FORBIDDEN.search(_said(error)))


def is_full(error: Exception) -> bool:
    """Whether there is no room; what the operating system or the store says of it is passed on in words alone."""
    return bool(_FULL.search(_said(error)))


def lacks_keys(error: Exception) -> bool:
    """Whether no key is set, and the machine was asked for one and gave none."""
    return bool(_OF_THE_MACHINE.search(_said(error)))


def is_elsewhere(error: Exception) -> bool:
    """Whether the bucket lies in another region than the one that was asked."""
    return bool(_ELSEWHERE.search(_said(error)))


def first_line(error: Exception) -> str:
    """Return the first line of what the store said, for the operator; addresses in it are without their queries."""
    message = _MESSAGE.search(_said(error))
    line = message[1] if message else _said(error).strip().partition("\n")[0]
    return _ADDRESS.sub(lambda found: without_secrets(found[0]), line)[:_SAID_CHARACTERS]


def _said(error: Exception) -> str:
    """Return what the store answered, without the debug copy of the error, which repeats the request."""
    return str(error).partition("Debug source:")[0]


def open_store(settings: ObjectSettings) -> ObjectStore:
    """Open the store that the settings name; asks it nothing.

    Raises:
        Misconfigured: names the setting that is wrong.
    """
    try:
        scheme = parse_scheme(settings.url)
    except (BaseError, ValueError) as error:
        raise _wrong_url(settings) from error
    if scheme == "local":
        return _local(settings)
    if scheme not in _OPEN or not urlsplit(settings.url).netloc:
        raise _wrong_url(settings)
    try:
        return _OPEN[scheme](settings, _patience(settings))
    except (BaseError, ValueError) as error:
        # The library's own words may quote the key.
        detail = f"TESSERA_OBJECTS_URL {without_secrets(settings.url)!r} cannot be opened with the TESSERA_OBJECTS_*"
        raise Misconfigured(f"{detail} settings beside it ({type(error).__name__}): check their form.") from error


def lacks_folder(store: ObjectStore) -> bool:
    """Whether a store is a local folder that is gone, as one below a mount point without its mount."""
    folder = folder_of(store)
    return folder is not None and not folder.is_dir()


def folder_of(store: ObjectStore) -> Path | None:
    """Return the folder of a local store, None for one behind a network."""
    return Path(str(store.prefix)) if isinstance(store, LocalStore) else None


def static_keys(access_key_id: str, secret: str, session_token: str | None = None) -> Callable[[], S3Credential]:
    """Return a provider of S3 keys that nothing in the environment is mixed into, a session's token above all."""
    credential: S3Credential = {
        "access_key_id": access_key_id,
        "secret_access_key": secret,
        "token": session_token,
        "expires_at": None,
    }
    return lambda: credential


def _local(settings: ObjectSettings) -> LocalStore:
    folder = Path(unquote(urlsplit(settings.url).path))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        detail = f"TESSERA_OBJECTS_URL: the folder {folder} cannot be made ({error.strerror})"
        raise Misconfigured(f"{detail}; make it, and give it to the user of the service.") from error
    return LocalStore(folder, automatic_cleanup=True)


def _s3(settings: ObjectSettings, patience: dict[str, Any]) -> ObjectStore:
    path_style = bool(settings.endpoint) if settings.path_style is None else settings.path_style
    config: dict[str, Any] = {"virtual_hosted_style_request": not path_style}
    if settings.endpoint:
        config["endpoint"] = settings.endpoint.rstrip("/")
    if settings.region or settings.endpoint:
        config["region"] = settings.region or "us-east-1"
    secret = settings.secret_access_key.get_secret_value()
    if settings.access_key_id:
        patience = patience | {"credential_provider": static_keys(settings.access_key_id, secret)}
    return S3Store.from_url(settings.url, config=config, **patience)  # type: ignore[arg-type]  # a mapping of strings


def _google(settings: ObjectSettings, patience: dict[str, Any]) -> ObjectStore:
    key = settings.secret_access_key.get_secret_value()
    config = {"service_account_key": key, "base_url": settings.endpoint.rstrip("/")}
    return GCSStore.from_url(settings.url, config=_given(config), **patience)  # type: ignore[arg-type]  # as in `_s3`


def _azure(settings: ObjectSettings, patience: dict[str, Any]) -> ObjectStore:
    key = settings.secret_access_key.get_secret_value()
    config = {"account_name": settings.access_key_id, "account_key": key, "endpoint": settings.endpoint.rstrip("/")}
    return AzureStore.from_url(settings.url, config=_given(config), **patience)  # type: ignore[arg-type]  # as in `_s3`


_OPEN: dict[str, Callable[[ObjectSettings, dict[str, Any]], ObjectStore]] = {
    "s3": _s3,
    "gcs": _google,
    "azure": _azure,
}


def _given(config: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in config.items() if value}


def _patience(settings: ObjectSettings) -> dict[str, Any]:
    """Return how long is waited, how often is tried again, and whom the connection trusts."""
    options: dict[str, Any] = {
        "allow_http": _may_be_plain(settings),
        "connect_timeout": timedelta(seconds=settings.connect_timeout_s),
        "timeout": timedelta(seconds=settings.timeout_s),
    }
    if settings.ca_file is not None:
        try:
            options["root_certificate"] = settings.ca_file.read_bytes()
        except OSError as error:
            raise Misconfigured(f"TESSERA_OBJECTS_CA_FILE cannot be read ({error.strerror}).") from error
    retries = {"max_retries": settings.retries, "retry_timeout": timedelta(seconds=settings.retry_s)}
    return {"client_options": options, "retry_config": retries}


def _may_be_plain(settings: ObjectSettings) -> bool:
    """Whether the endpoint is `http://`, and may be.

    Raises:
        Misconfigured: it is on another machine, and the operator did not say so; or it is no address.
    """
    said = without_secrets(settings.endpoint)
    # The library panics at others when it signs a request.
    if settings.endpoint and not (settings.endpoint.isascii() and can_be_asked(settings.endpoint)):
        raise Misconfigured(
            f"TESSERA_OBJECTS_ENDPOINT is {said!r}; it must be an http(s) address without a query, in ASCII."
        )
    endpoint = urlsplit(settings.endpoint)
    if endpoint.scheme != "http":
        return settings.allow_http
    if not settings.allow_http and not _is_loopback(endpoint.hostname or ""):
        raise Misconfigured(
            f"TESSERA_OBJECTS_ENDPOINT {said!r} is not encrypted, and not on this machine: make it https://,"
            " or set TESSERA_OBJECTS_ALLOW_HTTP=true where the network is trusted."
        )
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _wrong_url(settings: ObjectSettings) -> Misconfigured:
    return Misconfigured(
        f"TESSERA_OBJECTS_URL is {without_secrets(settings.url)!r}; it must be file:///folder, s3://bucket, gs://bucket"
        " or az://container."
    )
