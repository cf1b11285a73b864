"""What the parts of a check of one tenant share: what is checked, how, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

from ingestion.fsck.report import Report
from ingestion.runtime import Runtime

T = TypeVar("T")
SWITCHES = 5
"""How often the live generation may change under a check before it is left to the next one."""
AT_ONCE = 1000
"""Candidates that are looked at again under one hold of the writer lock."""


class SwitchedError(Exception):
    """Another generation is live by now than that which is being checked."""


@dataclass
class Check:
    """A check of one tenant under way.

    With `repair` an entry that is too many is removed where it is found, under the same hold of the lock; what has to
    be made again is gathered here.
    """

    runtime: Runtime
    tenant_id: UUID
    repair: bool = False
    deep: bool = False
    advance: Callable[[float], None] = lambda _share: None
    """Told how far the check is, 0..1."""
    report: Report = field(default_factory=Report)
    without_vectors: set[tuple[UUID, int]] = field(default_factory=set)
    """Versions (document and number) whose vectors have to be made again."""
    without_words: set[tuple[UUID, int]] = field(default_factory=set)
    """The same of lexical entries."""
    originals: dict[tuple[UUID, int], str] = field(default_factory=dict)
    """Versions whose original is `missing` or `damaged`."""


def pieces(items: Sequence[T], size: int = AT_ONCE) -> Iterator[Sequence[T]]:
    """Yield `items` in pieces of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
