"""Credentials of sources, sealed before they reach the database: AES-256-GCM under a key of the installation.

Each is bound to its tenant and source: a sealed value copied to another row does not open.
"""

from __future__ import annotations

import json
import secrets
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tenants.errors import Conflict, Misconfigured, SourceFailed

_NONCE_BYTES = 12
_LEAST = 32


class Vault:
    """Seals and opens with `TESSERA_SECRET_SOURCES`; the workers have it, and not the pepper of the API keys."""

    def __init__(self, secret: str) -> None:
        derive = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"tessera:sources:1")
        if secret and len(secret) < _LEAST:
            raise Misconfigured(f"The setting TESSERA_SECRET_SOURCES is shorter than {_LEAST} characters.")
        self._cipher = AESGCM(derive.derive(secret.encode())) if secret else None

    def seal(self, tenant_id: UUID, source_id: UUID, credentials: dict[str, Any]) -> bytes:
        """Return credentials as they may be stored."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        plain = json.dumps(credentials).encode()
        return nonce + self._opened().encrypt(nonce, plain, tenant_id.bytes + source_id.bytes)

    def open(self, tenant_id: UUID, source_id: UUID, sealed: bytes) -> dict[str, Any]:
        """Return what was sealed for this source.

        Raises:
            SourceFailed: the secret has changed since, or the value is not of this source.
        """
        nonce, closed = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            found: dict[str, Any] = json.loads(self._opened().decrypt(nonce, closed, tenant_id.bytes + source_id.bytes))
        except InvalidTag as error:
            raise SourceFailed(
                "The source's credentials cannot be opened any more; give them again.", code="source_forbidden"
            ) from error
        return found

    def _opened(self) -> AESGCM:
        if self._cipher is None:
            raise Conflict(
                "No credentials can be kept here: the operator has not set TESSERA_SECRET_SOURCES.",
                code="credentials_not_kept",
            )
        return self._cipher
