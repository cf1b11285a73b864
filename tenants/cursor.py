"""Opaque list cursors: where the last page ended, signed and bound to the tenant and the list."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeVar
from uuid import UUID

from tenants.errors import FieldError, InvalidCursor

_MAC_BYTES = 12
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Sortable(Protocol):
    """A row of a list."""

    @property
    def created_at(self) -> datetime:
        """When it was made."""

    @property
    def id(self) -> UUID:
        """Breaks ties."""


Listed = TypeVar("Listed", bound=Sortable)


@dataclass(frozen=True)
class Position:
    """The sort key of the last item of a page: lists run from newest to oldest."""

    created_at: datetime
    id: UUID


class CursorSigner:
    """Signs and reads cursors with a key of the installation."""

    def __init__(self, pepper: str) -> None:
        self._key = hashlib.sha256(b"cursor:" + pepper.encode()).digest()

    def encode(self, scope: str, position: Position) -> str:
        """Return the cursor that continues after `position` in the list named by `scope`."""
        body = position.id.bytes + position.created_at.isoformat().encode()
        return base64.urlsafe_b64encode(self._mac(scope, body) + body).decode().rstrip("=")

    def encode_number(self, scope: str, number: int) -> str:
        """Return the cursor that continues after position `number` of a numbered list."""
        return self.encode(scope, Position(_EPOCH, UUID(int=number)))

    def decode_number(self, scope: str, cursor: str) -> int:
        """Return the position in a cursor of a numbered list; raise `InvalidCursor` when it is of another."""
        return self.decode(scope, cursor).id.int

    def decode(self, scope: str, cursor: str) -> Position:
        """Return the position in a cursor.

        Raises:
            InvalidCursor: it was not issued for this list.
        """
        wrong = InvalidCursor(
            "The cursor does not belong to this list.", fields=(FieldError("cursor", "not issued by this list"),)
        )
        try:
            raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
            if not hmac.compare_digest(mac, self._mac(scope, body)):
                raise wrong
            return Position(datetime.fromisoformat(body[16:].decode()), UUID(bytes=body[:16]))
        except ValueError as error:
            raise wrong from error

    def page(self, scope: str, found: Sequence[Listed], limit: int) -> tuple[list[Listed], str | None]:
        """Split `limit` + 1 found rows into the page and the cursor of the next, which is None on the last."""
        items = list(found[:limit])
        if len(found) <= limit:
            return items, None
        return items, self.encode(scope, Position(items[-1].created_at, items[-1].id))

    def _mac(self, scope: str, body: bytes) -> bytes:
        return hmac.new(self._key, scope.encode() + b"\0" + body, hashlib.sha256).digest()[:_MAC_BYTES]
