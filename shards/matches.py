"""The rows that a metadata filter lets through, as Postgres found them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from shards.vectors import VersionScope


@dataclass(frozen=True, eq=False)
class Matches:
    """Matching chunks: `version_nos` and `micros` (m,), `ids` their keys, 16 bytes each, joined."""

    version_nos: NDArray[np.int64]
    micros: NDArray[np.int64]
    ids: bytes

    def __len__(self) -> int:
        return len(self.version_nos)

    @cached_property
    def scope(self) -> VersionScope:
        """Return the versions that the engines may return."""
        return VersionScope(np.unique(self.version_nos))

    def by_micro(self, micros: int) -> NDArray[np.int64]:
        """Return the matching rows of each of `micros` micro-cells."""
        return np.bincount(self.micros, minlength=micros).astype(np.int64)

    def within(self, micros: NDArray[np.bool_], among: int, floor: float | None = None) -> VersionScope:
        """Return the versions that have rows in some of the micro-cells (micros,): a shorter filter for a search of the
        cells that hold these. See `VersionScope` for the rest."""
        return VersionScope(np.unique(self.version_nos[micros[self.micros]]), among, floor)

    def chunk_ids(self) -> list[UUID]:
        """Return the keys."""
        return [UUID(bytes=self.ids[at : at + 16]) for at in range(0, len(self.ids), 16)]
