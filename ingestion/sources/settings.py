"""Settings of sources: what an operator lets tenants fetch, and how much."""

from __future__ import annotations

import os

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ingestion.sources.guard import Rules, parse_rules

_OF_STORES = ("AWS_", "AZURE_", "GOOGLE_", "SERVICE_ACCOUNT", "MSI_ENDPOINT")


def forget_own_store() -> None:
    """Take what obstore reads out of this process's environment, after the service's own store was opened with it.

    A tenant's store would be opened with it too, and some of it cannot be overruled there: Google's credentials, and
    the keys that objects are encrypted with.
    """
    for name in [name for name in os.environ if name.startswith(_OF_STORES)]:
        del os.environ[name]


class SourceSettings(BaseModel):
    """Limits of sources. Lists are separated by commas."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    allow_networks: str = ""
    """Private hosts and networks that sources may fetch from, such as `10.1.0.0/16, wiki.corp.example:8080`. Each takes
    the ports of `ports` unless it names one; `:*` means any."""
    ports: str = "80,443"
    """Ports that sources may fetch from."""
    folders: str = ""
    """Folders of the workers' machine below which tenants may register local folders; none without it. `{tenant}` in
    one stands for the tenant's id, so that each has its own."""
    object_endpoints: str = ""
    """Addresses of S3-compatible stores that tenants may name beside AWS, Google and Azure, such as
    `https://s3.corp.example`."""
    robots: bool = True
    """Whether pages of web sites are left out where `robots.txt` asks for it."""
    user_agent: str = "Tessera/1.0"
    """What the fetcher calls itself; `robots.txt` is read for its first word."""
    per_tenant: int = Field(default=50, ge=1)
    """Most sources of one tenant."""
    max_entries: int = Field(default=10_000, ge=1)
    """Most entries of one source; a source that lists more fails."""
    max_listing_bytes: int = Field(default=50 * 1024 * 1024, ge=1024)
    """Largest feed or sitemap, unpacked."""
    max_run_bytes: int = Field(default=2 * 1024**3, ge=1024)
    """Most bytes that one run fetches."""
    git_memory_bytes: int = Field(default=1024**3, ge=256 * 1024**2)
    """Address space of the process that unpacks a Git repository."""
    connect_timeout_s: float = Field(default=10.0, gt=0)
    """Seconds to wait for a connection, and between two blocks of an answer."""
    total_timeout_s: float = Field(default=300.0, gt=0)
    """Seconds that one answer may take in all."""
    fetches_at_once: int = Field(default=4, ge=1)
    """Requests of one run under way at a time."""
    runs_at_once: int = Field(default=4, ge=1)
    """Runs under way at a time in one worker; uploads do not wait for them."""
    runs_per_tenant: int = Field(default=2, ge=1)
    """The same for one tenant."""

    @field_validator("allow_networks")
    @classmethod
    def _networks(cls, value: str) -> str:
        parse_rules(value, "80")
        return value

    @field_validator("ports")
    @classmethod
    def _ports(cls, value: str) -> str:
        parse_rules("", value)
        return value

    @property
    def rules(self) -> Rules:
        """Return where sources may connect to."""
        return parse_rules(self.allow_networks, self.ports)

    @property
    def folder_roots(self) -> tuple[str, ...]:
        """Return the roots of local folders, as they were given."""
        return _items(self.folders)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Return the further object stores."""
        return tuple(item.rstrip("/") for item in _items(self.object_endpoints))


def _items(value: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in value.split(",") if item.strip())
