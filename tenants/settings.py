"""Settings of the floor: database roles, Redis, object storage, secrets."""

from __future__ import annotations

from pydantic import BaseModel, SecretStr


class DatabaseSettings(BaseModel):
    """One Postgres, three roles. URLs are SQLAlchemy URLs with the `postgresql+psycopg` driver."""

    url: str = ""
    """Role `tessera_app`: what the API uses."""
    worker_url: str = ""
    """Role `tessera_worker`: what the workers and the scheduler use."""
    owner_url: str = ""
    """Role `tessera_owner`: migrations only."""
    pool_size: int = 10
    connect_timeout_s: float = 5.0


class RedisSettings(BaseModel):
    """Broker and caches."""

    url: str = ""


class ObjectSettings(BaseModel):
    """Originals and extracted text: `file:///...`, `s3://...`, `gs://...`, `az://...`."""

    url: str = ""


class SecretSettings(BaseModel):
    """Secrets of the installation."""

    pepper: SecretStr = SecretStr("")
    """Key of the HMAC under which API keys are stored, and of signed cursors; at least 32 characters."""
