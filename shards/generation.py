"""A generation of a tenant's index, ready for use, and the copies of it that a process keeps.

A copy is brought up to date by the stamp: only micro-cells that changed since are read again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from shards.catalog import Catalog, Header, MicroRows
from shards.names import Space
from shards.routing import Routing

_KEPT_BYTES = 512 * 1024 * 1024
NO_CELL = -1
"""The cell of a micro-cell that was divided: its rows are in others."""


@dataclass(frozen=True, eq=False)
class Generation:
    """One generation at one moment. `micros` holds every micro-cell in order; `routing` is None while there is one."""

    tenant_id: UUID
    header: Header
    micros: MicroRows
    routing: Routing | None

    @property
    def space(self) -> Space:
        """Return where its rows lie."""
        return self.header.space

    @property
    def number(self) -> int:
        """Return its number."""
        return self.header.number

    @property
    def rows(self) -> int:
        """Return how many chunks it holds."""
        return int(self.micros.rows.sum())

    @property
    def cells(self) -> int:
        """Return in how many partitions its rows lie."""
        return self.header.cells

    def cell_of(self, micros: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the cell (n,) that holds each of these micro-cells (n,)."""
        found: NDArray[np.int64] = self.micros.cell[micros]
        return found


class Generations:
    """The generations that this process has read, the least recently used of them dropped first."""

    def __init__(self, most_bytes: int = _KEPT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[UUID, int], Generation] = OrderedDict()
        self._bytes = 0

    def kept(self, tenant_id: UUID, header: Header) -> Generation | None:
        """Return the generation of a header that was just read, None if more of it has to be read first."""
        key = (tenant_id, header.number)
        kept = self._kept.get(key)
        if kept is None or kept.header.stamp < header.stamp:
            return None
        self._kept[key] = found = replace(kept, header=header, routing=_measured(kept.routing, header))
        self._kept.move_to_end(key)
        return found

    async def current(self, catalog: Catalog, header: Header) -> Generation:
        """Return the generation of a header that was just read."""
        found = self.kept(catalog.tenant_id, header)
        if found is not None:
            return found
        key = (catalog.tenant_id, header.number)
        kept = self._kept.get(key)
        if kept is None:
            found = _made(catalog.tenant_id, header, await catalog.micro_rows(header.number))
        else:
            changed = await catalog.micro_rows(header.number, after=kept.header.stamp)
            found = _made(catalog.tenant_id, header, _merged(kept.micros, changed))
        before = self._kept.pop(key, None)  # another task may have put it there meanwhile
        self._bytes += _size(found) - (0 if before is None else _size(before))
        self._kept[key] = found
        while self._bytes > self._most_bytes and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return found


def _made(tenant_id: UUID, header: Header, micros: MicroRows) -> Generation:
    return Generation(tenant_id, header, micros, _measured(routing_of(micros, header.dimension), header))


def _measured(routing: Routing | None, header: Header) -> Routing | None:
    """Return the routing by whose worth the header's calibration was measured."""
    reference = None if header.calibration is None else header.calibration.mean_rows
    if routing is None or routing.reference_rows == reference:
        return routing
    return replace(routing, reference_rows=reference)


def routing_of(micros: MicroRows, dimension: float | None) -> Routing | None:
    """Return how to route by these micro-cells, None while nothing tells them apart."""
    if len(micros.micro) < 2 or dimension is None:
        return None
    cells, places = np.unique(micros.cell, return_inverse=True)
    if cells[0] == NO_CELL:  # what was divided is empty, so any place will do
        cells, places = cells[1:], np.maximum(places - 1, 0)
    return Routing(micros.sums, micros.rows, places.astype(np.int64), cells, dimension)


def _merged(known: MicroRows, changed: MicroRows) -> MicroRows:
    size = max(int(changed.micro.max(initial=-1)) + 1, len(known.micro))

    def patched(before: NDArray[np.generic], after: NDArray[np.generic]) -> NDArray[np.generic]:
        values = np.zeros((size, *before.shape[1:]), dtype=before.dtype)
        values[: len(before)] = before
        values[changed.micro] = after
        return values

    if not len(changed.micro):
        return known
    return MicroRows(
        np.arange(size),
        patched(known.cell, changed.cell).astype(np.int64),
        patched(known.rows, changed.rows).astype(np.int64),
        patched(known.sums, changed.sums).astype(np.float32, copy=False),
    )


def _size(generation: Generation) -> int:
    return 3 * generation.micros.sums.nbytes + 1024
