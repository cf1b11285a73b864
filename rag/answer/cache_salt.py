"""The salt under which a tenant's prompts lie in a server's prefix cache.

A prompt that another one begins like is answered sooner, so who can send prompts can find out what others have sent
("PromptPeek", Wu et al., NDSS 2025). vLLM hashes `cache_salt` into the first block: only equal salts share. The salt
follows from a secret of the installation, so nobody can work it out from a tenant's id, and the id is not told.
"""

from __future__ import annotations

import hashlib
import hmac
from uuid import UUID

_PURPOSE = b"tessera generation cache salt 1\0"


def cache_salt(secret: str, tenant_id: UUID) -> str:
    """Return the tenant's salt, 64 hexadecimal digits, always the same with the same secret."""
    return hmac.new(secret.encode(), _PURPOSE + tenant_id.bytes, hashlib.sha256).hexdigest()
