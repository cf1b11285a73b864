"""Editions of a tenant's chunks: the same documents, cut or embedded by another recipe, beside those that are read.

The next edition is a generation of state `embedding`. It is written to like the live one, chunk by chunk, while that
answers; what lacks in it is found by comparing its places with the active versions, so uploads that commit meanwhile
need not know of it. `adopt` makes it the live generation at one commit, and with it its lexical index and its chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from shards.catalog import Catalog, Header, MicroRows, Recipe
from shards.names import Space
from shards.vectors import VectorStore
from tenants.errors import TesseraError


class IncompleteIndex(TesseraError):
    """The vector store lacks rows that were written to it; the index that answers stays as it is."""

    code = "index_incomplete"
    title = "Index incomplete"


@dataclass(frozen=True)
class NextEdition:
    """What the next edition is to be."""

    space: Space
    recipe: Recipe


def empty_micros(dim: int) -> MicroRows:
    """Return the one micro-cell of a generation that holds nothing yet."""
    nothing, zero = np.zeros((1, dim), dtype=np.float32), np.zeros(1, dtype=np.int64)
    return MicroRows(zero, zero, zero, nothing, nothing)


async def begin(catalog: Catalog, wanted: NextEdition) -> Header:
    """Plan the next edition's generation, empty, in one cell. The caller commits before `prepare`, so that its number
    and its space are known whatever happens. One begun before is retired."""
    await catalog.retire("embedding")
    edition = await catalog.last_edition() + 1
    await catalog.plan(wanted.space, state="embedding", recipe=wanted.recipe, edition=edition)
    await catalog.add_micros(wanted.space.generation, empty_micros(wanted.space.dim))
    [header] = await catalog.generations("embedding")
    return header


async def prepare(catalog: Catalog, vectors: VectorStore, header: Header) -> None:
    """Make the space of the next edition; repeating it changes nothing."""
    await catalog.serialise(header.space)
    await vectors.create(header.space, cells=1)


async def embedding(catalog: Catalog, number: int) -> Header | None:
    """Return the next edition's generation, None when it was given up."""
    found = [header for header in await catalog.generations("embedding") if header.number == number]
    return found[0] if found else None


async def adopt(catalog: Catalog, vectors: VectorStore, number: int) -> None:
    """Make the next edition the live one, in the caller's transaction and writer lock, no rebuild being under way.

    Raises:
        IncompleteIndex: the vector store holds fewer rows than were written.
    """
    header = await embedding(catalog, number)
    assert header is not None
    rows = int((await catalog.micro_rows(number)).rows.sum())
    held = await vectors.count(header.space)
    if held < rows:
        raise IncompleteIndex(f"{header.space} holds {held:,} of the {rows:,} rows that were written to it.")
    await catalog.retire("live", "building")
    await catalog.set(number, state="live")


async def dead_editions(catalog: Catalog, *, grace: timedelta) -> list[int]:
    """Return the editions of which no generation is left but such as were retired at least `grace` ago."""
    gone = {header.number for header in await catalog.generations("retired", before=grace)}
    known = await catalog.generations("live", "building", "embedding", "retired")
    kept = {header.edition for header in known if header.number not in gone}
    return sorted({header.edition for header in known} - kept)
