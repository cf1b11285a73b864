"""Settings of the floor: database roles, Redis, object storage, secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from tenants.given_keys import StrippedKey


class DatabaseSettings(BaseModel):
    """One Postgres, three roles. URLs are SQLAlchemy URLs with the `postgresql+psycopg` driver."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    url: str = ""
    """Role `tessera_app`: what the API uses."""
    worker_url: str = ""
    """Role `tessera_worker`: what the workers and the scheduler use."""
    owner_url: str = ""
    """Role `tessera_owner`: migrations only."""
    pool_size: int = 20
    """Connections of one process to Postgres."""
    connect_timeout_s: float = 5.0
    """Seconds to wait for a connection."""
    prepare: Literal["auto", "never"] = "auto"
    """Whether statements are prepared at the server: `auto` does so unless the connection goes through a pooler
    (PgBouncer), which it notices by itself."""


class RedisSettings(BaseModel):
    """Broker and caches."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    url: str = ""
    """The broker: `redis://user:password@host:6379/0`, or `rediss://` for TLS. Not a Redis Cluster."""
    cache_url: str = ""
    """A second Redis for what may be lost (signs of life), that may evict; without it the broker has them too."""
    ca_file: str = ""
    """File of the authority that signed the certificate of a `rediss://` server; else the system's."""
    prefix: str = "tessera"
    """What every key begins with. Two installations that share one Redis have different ones."""


class ObjectSettings(BaseModel):
    """Originals. What is not given here is taken from the cloud's usual environment variables and instance roles."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    url: str = ""
    """Where originals are kept: `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`;
    the prefix may be left out."""
    endpoint: str = ""
    """Address of an S3-compatible server, such as `https://s3.corp.example`, or of another Azure or Google endpoint;
    the cloud's own without it."""
    region: str = ""
    """Region of the bucket, S3."""
    access_key_id: Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[!-~]*$")] = ""
    """S3: the key id; Azure: the name of the storage account. Without it the usual environment (`AWS_*`, `AZURE_*`,
    `GOOGLE_*`) and the roles of instances and pods."""
    secret_access_key: StrippedKey = SecretStr("")
    """S3: the key's secret; Azure: the account's key; Google: the JSON of a service account's key."""
    path_style: bool | None = None
    """Whether the bucket stands in the path of a request, not in the host name. As it is: with an endpoint, yes."""
    ca_file: Path | None = None
    """PEM file of authorities that are trusted beside the system's."""
    allow_http: bool = False
    """Whether an endpoint may be `http://` that is not on this machine: originals and keys can be read on the way."""
    connect_timeout_s: float = Field(default=3.0, gt=0)
    """Seconds to wait for a connection to the object store."""
    timeout_s: float = Field(default=20.0, gt=0)
    """Seconds that one request to it may take. A request moves at most 5 MiB; larger originals go in parts."""
    retries: int = Field(default=2, ge=0, le=10)
    """How often a request is tried again when the store fails or hangs up."""
    retry_s: float = Field(default=10.0, gt=0)
    """Seconds after which it is tried no more."""


class SecretSettings(BaseModel):
    """Secrets of the installation."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    pepper: SecretStr = SecretStr("")
    """Key of the HMAC under which API keys are stored, and of signed cursors; at least 32 characters."""
    sources: SecretStr = SecretStr("")
    """Key under which credentials of sources are sealed; at least 32 characters. API and workers have the same. Without
    it no source may have credentials."""
