"""A process's copy of a generation follows the catalog, reading only what changed, and is bounded."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from shards import generation
from shards.catalog import Header, MicroRows
from shards.generation import Generations
from shards.names import Space
from tests.shards.memory_catalog import CatalogState, MemoryCatalog

DIM = 4


async def no_pause() -> None:
    await asyncio.sleep(0)


class Reading(MemoryCatalog):
    """Notes what is read."""

    read: list[int]

    async def micro_rows(self, *arguments: Any, **named: Any) -> MicroRows:
        found = await super().micro_rows(*arguments, **named)
        self.read = [*getattr(self, "read", []), len(found.micro)]
        return found


def catalog_of(micros: int) -> tuple[CatalogState, Header]:
    state = CatalogState()
    state.plan(Space(uuid4(), 1, 3), "live", 1)
    sums = np.eye(micros, DIM, dtype=np.float32)
    numbers = np.arange(micros)
    state.add_micros(1, MicroRows(numbers, numbers % 2, np.ones(micros, dtype=np.int64), sums, sums))
    state.set(1, {"micros": micros, "cells": 2, "dimension": 2.0})
    return state, state.headers[1]


async def test_only_what_changed_is_read_again() -> None:
    state, header = catalog_of(4)
    copies, tenant_id = Generations(), uuid4()
    catalog = Reading(state, tenant_id, no_pause)
    first = await copies.current(catalog, header)
    state.count(1, {2: (5, np.full(DIM, 2.0, dtype=np.float32))})
    catalog = Reading(state, tenant_id, no_pause)
    second = await copies.current(catalog, state.headers[1])
    assert catalog.read == [1]
    assert second.micros.rows.tolist() == [1, 1, 6, 1]
    assert first.micros.rows.tolist() == [1, 1, 1, 1], "what a query holds does not change under it"
    assert second.routing is not None
    assert second.routing.sums[2].tolist() == pytest.approx(np.eye(DIM)[2] + 2.0)
    again = await copies.current(catalog, state.headers[1])
    assert catalog.read == [1]
    assert again.micros is second.micros


async def test_copies_are_bounded_also_when_they_are_made_at_the_same_time() -> None:
    state, header = catalog_of(4)
    tenants = [uuid4() for _ in range(6)]
    one = generation._size(await Generations().current(MemoryCatalog(state, tenants[0], no_pause), header))
    copies = Generations(most_bytes=3 * one)
    catalogs = [MemoryCatalog(state, tenant_id, no_pause) for tenant_id in tenants for _ in range(4)]
    await asyncio.gather(*(copies.current(catalog, header) for catalog in catalogs))
    assert copies._bytes == sum(generation._size(kept) for kept in copies._kept.values()) <= 3 * one
