"""Whom a source talks to, in one spelling: where its credentials may go, and whether a bucket is the service's own."""

from __future__ import annotations

from urllib.parse import urlsplit

from ingestion.sources.config import Config, GitConfig, ObjectsConfig

Bucket = tuple[str, str | None, str]
"""Provider (s3, gs, az, file), account where the provider has them and it is known, and bucket or container."""

_PROVIDERS = {"s3": "s3", "s3a": "s3", "gs": "gs", "az": "az", "adl": "az", "azure": "az", "abfs": "az", "abfss": "az"}
_AZURE_HOSTS = (".blob.core.windows.net", ".dfs.core.windows.net", ".fabric.microsoft.com")
_PORTS = {"http": 80, "https": 443}


def bucket_of(url: str) -> Bucket:
    """Return the bucket that an address names, in any of the forms that obstore takes."""
    parts = urlsplit(url)
    host, folders = (parts.hostname or "").lower(), parts.path.strip("/").split("/")
    if parts.scheme in _PROVIDERS:
        provider = _PROVIDERS[parts.scheme]
        if parts.username:  # abfss://container@account.dfs.core.windows.net
            return provider, host.split(".")[0], parts.username
        return provider, None, host
    if host.endswith(_AZURE_HOSTS):
        return "az", host.split(".")[0], folders[0]
    if host.endswith(".amazonaws.com") and not host.startswith(("s3.", "s3-")):
        return "s3", None, host.split(".s3")[0]
    if parts.scheme in ("http", "https"):
        return "s3", None, folders[0]
    return parts.scheme, None, host


def is_own(config: ObjectsConfig, own: str) -> bool:
    """Whether a source names the bucket of the service's originals; where the account is not told, any may be it."""
    provider, account, bucket = bucket_of(own)
    same_account = account is None or config.account is None or account == config.account
    return (config.scheme, config.bucket) == (provider, bucket) and same_account


def origin_of(config: Config) -> tuple[object, ...]:
    """Return whom the credentials of a source are shown to: scheme, host and port, or bucket, account and endpoint."""
    if isinstance(config, ObjectsConfig):
        return config.scheme, config.bucket, config.account, (config.endpoint or "").rstrip("/")
    if isinstance(config, GitConfig):
        parts = urlsplit(config.url)
        return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(parts.scheme)
    return ()
