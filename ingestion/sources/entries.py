"""What a source consists of, as every kind of source tells it to the run: batches of entries, each read when needed."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

from shards.filters import MAX_TEXT_BYTES
from tenants.errors import SourceFailed

_MAX_KEY = 400
"""Characters of a key: with the source's id before it, it must fit into a document's external id."""


@dataclass(frozen=True)
class Validators:
    """What a server said about the version it sent, to ask later whether there is another (RFC 9110, section 13)."""

    etag: str | None = None
    last_modified: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of a conditional request. A validator that is not ASCII cannot be sent back."""
        given = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in given.items() if value is not None and value.isascii()}


@dataclass(frozen=True)
class Entry:
    """One thing in a source that becomes one document.

    `key` is the same in every run. `stamp` names the version, where the listing tells it: an entry with the stamp of
    the last run is not read again.
    """

    key: str
    place: str
    """Where it is read: an address, a path, the name of an object."""
    stamp: str | None = None
    title: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    content: bytes | None = None
    """The content itself, where the listing carries it."""
    leads_on: bool = False
    """Whether further entries are found in what is read of it: a run that is repeated reads it again for them."""


@dataclass(frozen=True)
class Known:
    """What the last run kept about an entry."""

    validators: Validators
    stamp: str | None
    sha256: bytes | None


@dataclass(frozen=True)
class Read:
    """The content of an entry was read into the file that was given."""

    filename: str
    media_type: str
    validators: Validators = field(default_factory=Validators)


class Connector(Protocol):
    """A source that is being read. Errors of the whole source are raised by `batches`, those of an entry by `read`."""

    cursor: dict[str, Any]
    """After the last batch: what the next run gives back, so that it can ask whether anything has changed."""
    complete: bool
    """After the last batch: whether all there is was listed. What is missing in a part has not vanished."""

    def batches(self) -> AsyncGenerator[list[Entry], None]:
        """Yield the entries, a batch at a time; each batch is read before the next is asked for.

        Raises:
            Unchanged: the source is the same as when `cursor` was made.
            SourceFailed: it cannot be read.
        """
        ...

    async def read(self, entry: Entry, known: Known | None, target: BinaryIO) -> Read | None:
        """Write the content of an entry to `target`; return None when it is the known one.

        Raises:
            SourceFailed: it cannot be read.
        """
        ...

    async def aclose(self) -> None:
        """Close what is open."""
        ...


class Unchanged(Exception):
    """The whole source is as it was in the last run that went through."""


def bounded_key(text: str) -> str:
    """Return a key of bounded length that tells this text from every other."""
    clean = "".join(character if character.isprintable() else "�" for character in text)
    if clean == text and len(text) <= _MAX_KEY:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{clean[: _MAX_KEY - 1 - len(digest)]}#{digest}"


def bounded_text(text: str) -> str:
    """Return as much of a text as a metadata field takes."""
    return text.encode("utf-8", "replace")[:MAX_TEXT_BYTES].decode("utf-8", "ignore")


def too_large(what: str, most: int) -> SourceFailed:
    """Return the error of an entry or a listing that is over its limit."""
    return SourceFailed(f"{what} is larger than {most:,} bytes.", code="source_too_large")
