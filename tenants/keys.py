"""API keys: `tsr_live_<id>_<secret><checksum>`, base62, of which only an HMAC of the secret is ever stored.

The checksum (CRC-32 in base62, six characters, as GitHub's tokens have it) rejects a mistyped key before any lookup.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
import zlib
from dataclasses import dataclass

from tenants.errors import Unauthenticated

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PREFIX = "tsr_live_"
_ID_CHARS = 12
_SECRET_CHARS = 32  # 32 * log2(62) = 190 bits
_CHECK_CHARS = 6


@dataclass(frozen=True)
class KeyParts:
    """A key taken apart: `id` is public, `secret` is not."""

    id: str
    secret: str


def generate_key() -> tuple[KeyParts, str]:
    """Return the parts of a new key and the key itself, which is shown once and never stored."""
    parts = KeyParts(_random(_ID_CHARS), _random(_SECRET_CHARS))
    body = f"{_PREFIX}{parts.id}_{parts.secret}"
    return parts, body + _checksum(body)


def parse_key(key: str) -> KeyParts:
    """Take a key apart.

    Raises:
        Unauthenticated: `malformed_key` when the form or the checksum is wrong.
    """
    body, check = key[:-_CHECK_CHARS], key[-_CHECK_CHARS:]
    fields = body.removeprefix(_PREFIX).split("_")
    well_formed = (
        key.startswith(_PREFIX)
        and len(fields) == 2
        and len(fields[0]) == _ID_CHARS
        and len(fields[1]) == _SECRET_CHARS
        and set(fields[0] + fields[1]) <= set(_ALPHABET)
        and hmac.compare_digest(check.encode(), _checksum(body).encode())
    )
    if not well_formed:
        raise Unauthenticated("The key is not a Tessera key; check that it was copied whole.", code="malformed_key")
    return KeyParts(fields[0], fields[1])


def digest(pepper: str, secret: str) -> bytes:
    """Return HMAC-SHA-256 of the secret under the installation's pepper (32 bytes)."""
    return hmac.new(pepper.encode(), secret.encode(), hashlib.sha256).digest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    value, digits = zlib.crc32(body.encode()), ""
    while len(digits) < _CHECK_CHARS:
        value, rest = divmod(value, 62)
        digits = _ALPHABET[rest] + digits
    return digits
