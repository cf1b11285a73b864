"""The rows of passages: one for the engines, one for Postgres, under one id."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ingestion.chunk import Chunk
from ingestion.metadata import LANGUAGE
from shards.embed import PassageEmbeddings
from shards.index import IndexRow
from shards.models import DocumentVersion


@dataclass(frozen=True)
class Passages:
    """The chunks of one version under its title; their embeddings begin at `first`."""

    version: DocumentVersion
    title: str
    chunks: Sequence[Chunk]
    first: int


def chunk_id(version: DocumentVersion, chunk: Chunk, edition: int) -> UUID:
    """Derive a chunk's id from its content and place, so that a repeated task overwrites and never doubles."""
    content = f"{version.tenant_id}:{version.document_id}:{version.version}:{chunk.position}:{chunk.text}"
    # The first edition's ids are those from before there were editions.
    content += f":{edition}" if edition > 1 else ""
    return UUID(bytes=hashlib.sha256(content.encode()).digest()[:16])


def rows_of(
    documents: Sequence[Passages], embeddings: PassageEmbeddings, edition: int
) -> tuple[list[IndexRow], list[dict[str, Any]]]:
    """Return the rows of documents' chunks in an edition: for the engines, and for the table of chunks."""
    index, stored = [], []
    for document in documents:
        version = document.version
        for number, chunk in enumerate(document.chunks, start=document.first):
            identity = chunk_id(version, chunk, edition)
            heading = " > ".join((document.title, *chunk.headings))
            vector, language = embeddings.vectors[number], version.doc_metadata.get(LANGUAGE)
            index.append(IndexRow(identity, version.version_no, heading, chunk.text, vector, language))
            stored.append(
                {
                    "tenant_id": version.tenant_id,
                    "id": identity,
                    "document_id": version.document_id,
                    "version": version.version,
                    "edition": edition,
                    "position": chunk.position,
                    "headings": list(chunk.headings),
                    "text": chunk.text,
                    "page": chunk.page,
                    "span_start": chunk.start,
                    "span_end": chunk.end,
                    "tokens": chunk.tokens,
                    "token_bits": embeddings.token_bits[number],
                }
            )
    return index, stored
