"""Many documents in few requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

MAX_DOCUMENTS = 100
"""As many as the service takes in one request."""
MAX_BYTES = 8 * 1024 * 1024
"""Content sent in one request; a larger document goes alone."""


@dataclass(frozen=True)
class NewDocument:
    """A document to upload with others."""

    filename: str
    content: bytes
    external_id: str | None = None
    title: str | None = None
    metadata: Mapping[str, Any] | None = None


def in_requests(items: Iterable[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield the items in order, as many together as one request takes. `size_of` gives the bytes of an item."""
    group: list[T] = []
    total = 0
    for item in items:
        size = size_of(item)
        if group and (len(group) == MAX_DOCUMENTS or total + size > MAX_BYTES):
            yield group
            group, total = [], 0
        group.append(item)
        total += size
    if group:
        yield group
