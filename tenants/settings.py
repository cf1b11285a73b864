"""Settings of the floor: database roles, Redis, object storage, secrets."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, SecretStr


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


class RedisSettings(BaseModel):
    """Broker and caches."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    url: str = ""
    """`redis://:password@host:port/0`: broker and signs of life."""


class ObjectSettings(BaseModel):
    """Originals."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    url: str = ""
    """Where originals are kept: `file:///...`, `s3://...`, `gs://...`, `az://...`."""


class SecretSettings(BaseModel):
    """Secrets of the installation."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    pepper: SecretStr = SecretStr("")
    """Key of the HMAC under which API keys are stored, and of signed cursors; at least 32 characters."""
    sources: SecretStr = SecretStr("")
    """Key under which credentials of sources are sealed; at least 32 characters. API and workers have the same. Without
    it no source may have credentials."""
