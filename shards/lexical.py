"""What the service asks of a lexical store: one BM25 index a tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from shards.vectors import Scored, VersionScope
from tenants.errors import TesseraError


class DamagedIndex(TesseraError):
    """The lexical index cannot be read. It is dropped and built again from Postgres."""

    code = "lexical_damaged"
    title = "Lexical index damaged"


@dataclass(frozen=True)
class ChunkText:
    """One entry: a chunk, the version it belongs to, its heading (title and headings joined by " > ") and its text.

    `language` is the text's as a tag like `de` or `pt-BR`, None where nobody said. A store that knows the language
    stems its words by it as well as by English.
    """

    chunk_id: UUID
    version_no: int
    heading: str
    text: str
    language: str | None = None


@dataclass(frozen=True)
class HeldEntry:
    """An entry as the store holds it: the chunk and the version it says it is."""

    chunk_id: UUID
    version_no: int


class LexicalStore(Protocol):
    """BM25 indexes by name. Names are those of `shards.names`; another raises ValueError.

    An index comes into being with its first insert, so one that does not exist is an empty one: it has no hits and a
    count of 0. A reader in another process therefore survives a drop: its next search finds nothing. A store that does
    not answer raises `Unavailable` with the code `lexical_unavailable`; a broken index raises `DamagedIndex`.

    Writes to one index must not overlap. A store serialises those of its own process; across processes the caller holds
    the tenant's writer lock, and a writer that finds the index taken nevertheless waits a while and then raises
    `Unavailable` with the code `lexical_busy`.
    """

    async def place(self, index: str, *, shared: bool) -> bool:
        """Make the index where it belongs, or move it there with all that it holds: among others' (`shared`), or by
        itself. One that is there already stays as it is, unless its analysis is out of date.

        Readers meanwhile find every entry once. A call that was cut off is repaired by the next. What a move leaves
        behind is out of every reader's sight, but not of a delete's or of `count_versions`; the return value says
        whether it left something, which `tidy` removes. A store in which every index is by itself does nothing.
        """

    async def tidy(self, index: str, *, grace: timedelta) -> None:
        """Remove what moves of the index left behind, unless the last of them was less than `grace` ago: a search that
        began before it may still be under way."""

    async def insert(self, index: str, rows: Sequence[ChunkText]) -> None:
        """Write entries; the same chunk again replaces its entry.

        When it returns, they are durable and seen by the next search of any process.
        """

    async def delete_versions(self, index: str, versions: Sequence[int]) -> int:
        """Remove every entry of these versions and return how many there were. Durable when it returns."""

    async def search(self, index: str, query: str, *, k: int, scope: VersionScope | None) -> list[Scored]:
        """Return the `k` best entries by BM25, best first, of those whose version is in `scope` (None: any).

        The query is text, never syntax: any string is harmless. It matches entries that share at least one term with
        it, in heading or text; of a very long query the rarest terms count.

        Raises:
            ValueError: `k` below 1.
        """

    async def word_idf(self, index: str, words: Sequence[str]) -> dict[str, float]:
        """Return ln(1 + (N - df + .5) / (df + .5)) for each word, by the index's own counts of its stem.

        A word that the index does not hold gets the maximum (df = 0); of a word with several terms the rarest counts;
        one without any (punctuation) gets 0.
        """

    async def count_versions(self, index: str, versions: Sequence[int]) -> int:
        """Return how many entries of these versions there are."""

    async def delete_chunks(self, index: str, chunk_ids: Sequence[UUID]) -> None:
        """Remove the entries of chunks; those not there are passed over. Durable when it returns."""

    def entries(self, index: str, *, batch: int = 5000) -> AsyncIterator[list[HeldEntry]]:
        """Stream every entry of one moment, in no particular order, in lists of about `batch`."""

    async def held(self, index: str, chunk_ids: Sequence[UUID]) -> list[HeldEntry]:
        """Return the entries of these chunks; a chunk that has two comes twice."""

    async def lacking(self, index: str, rows: Sequence[ChunkText]) -> set[UUID]:
        """Return the chunks whose entry lacks a term of their heading or text. One without an entry is among them."""

    async def count(self, index: str) -> int:
        """Return the number of entries."""

    async def drop(self, index: str) -> bool:
        """Remove the index; return whether it was there."""

    async def indexes(self, *, of: UUID | None = None) -> list[str]:
        """Return the names of all indexes, or of those of a tenant, sorted."""

    async def ping(self) -> None:
        """Return when the store answers."""

    async def aclose(self) -> None:
        """Release the readers. The store is not used afterwards."""
