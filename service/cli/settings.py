"""What the commands that talk to a service read from the environment."""

from __future__ import annotations

from pydantic import SecretStr

from service.settings import Settings


class ClientSettings(Settings):
    """`TESSERA_URL`, `TESSERA_KEY` and `TESSERA_ADMIN_KEY`, beside what the service itself knows."""

    url: str | None = None
    """Address of the service; without it, the local stack of the data folder."""
    key: SecretStr | None = None
    """A tenant's key."""


class InitSettings(Settings):
    """`TESSERA_SUPERUSER_URL`: for `tessera db init` alone, no part of the service reads it."""

    superuser_url: SecretStr | None = None
    """Address of a role that may create roles and databases, on the server's maintenance database."""


class MilvusInitSettings(Settings):
    """`TESSERA_MILVUS_ADMIN_TOKEN`: for `tessera milvus init` alone."""

    milvus_admin_token: SecretStr | None = None
    """`user:password` of who may make users and roles on the Milvus server."""
