"""An order-independent digest of a set of keys, the same in Python and in Postgres.

A key is an id and a number. The digest is their count, the XOR of the ids' lower halves and a weighted sum of the
numbers. Ids are random in these bits (chunk ids are hashes of content, others UUIDv7), so two sets that differ have
equal digests with a chance of 2^-64; a repeat, which XOR alone would not see, changes the count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

_HALF = (1 << 64) - 1
_KEYS_AT_ONCE = 100_000
"""Keys of differing buckets that are held in memory together."""


@dataclass
class Digest:
    """The digest of the keys added so far."""

    count: int = 0
    xor: int = 0
    weight: int = 0

    def add(self, one: UUID, number: int) -> None:
        """Add a key."""
        bits = one.int
        self.count += 1
        self.xor ^= bits & _HALF
        self.weight += number * (1 + (bits & 0xFFFF))


def columns(one: str, number: str) -> str:
    """Return the SQL aggregates that `digest_of` reads, over a UUID and a number."""
    digits = f"right(replace(CAST({one} AS text), '-', ''), 16)"
    return (
        f"count(*) AS keys, coalesce(bit_xor(CAST(CAST('x' || {digits} AS bit(64)) AS bigint)), 0) AS xor_keys,"
        f" coalesce(sum(CAST({number} AS numeric) * (1 + CAST(CAST('x' || right({digits}, 4) AS bit(16)) AS int))), 0)"
        " AS weight"
    )


def digest_of(keys: int, xor_keys: int, weight: int) -> Digest:
    """Return the digest that Postgres computed."""
    return Digest(int(keys), int(xor_keys) & _HALF, int(weight))


def bucket_of(one: UUID) -> int:
    """Return which of 256 buckets a key without a partition falls into: its last byte."""
    return one.int & 0xFF


def bucket_column(one: str) -> str:
    """Return `bucket_of` in SQL."""
    return f"get_byte(uuid_send({one}), 15)"


def groups_of(sizes: Mapping[int, int]) -> Iterator[list[int]]:
    """Yield buckets, given with their sizes, in groups of so many keys as are held together. A group takes one pass."""
    group: list[int] = []
    held = 0
    for bucket, size in sizes.items():
        if group and held + size > _KEYS_AT_ONCE:
            yield group
            group, held = [], 0
        group.append(bucket)
        held += size
    if group:
        yield group
