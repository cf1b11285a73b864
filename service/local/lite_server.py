"""Milvus Lite's server, made safe for calls that come together: `python -m service.local.lite_server server ...`.

The server answers in ten threads, and Milvus Lite 3 itself guards little of what they share:

- The first calls after a start each open a collection that they find closed. Every one of them has its own memory and
  log, one is kept, and what was written to another is lost.
- Two writers of a collection draw the same numbers, or write to a log that the other has just put away.
- While a flush moves rows from memory to a file they are in neither for a search that comes between.

Here a collection is opened once, has one writer at a time, and no reader while it flushes. What it does is left alone.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from milvus_lite import db
from milvus_lite.adapter.grpc import server
from milvus_lite.cmdline import main
from milvus_lite.engine.collection import Collection

READS = ("search", "query", "get", "_num_entities")
DATA = ("insert", "upsert", "delete", "flush", "load", "release")
WRITES = (*DATA, "create_partition", "drop_partition", "create_index", "drop_index")


class Sharing:
    """Many readers or one changer; a changer that waits lets no further reader in, but those who read already."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers: dict[int, int] = {}
        """How deep each reading thread is."""
        self._changing = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Read."""
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: me in self._readers or not self._changing)
            self._readers[me] = self._readers.get(me, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._readers[me] -= 1
                if not self._readers[me]:
                    del self._readers[me]
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Change; only one thread at a time asks for it."""
        with self._changed:
            self._changing = True
            self._changed.wait_for(lambda: not self._readers)
        try:
            yield
        finally:
            with self._changed:
                self._changing = False
                self._changed.notify_all()


class SafeCollection(Collection):  # type: ignore[misc]  # published without types
    """A collection with one writer at a time, and no reader while it flushes."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._writing, self._sharing = threading.RLock(), Sharing()
        super().__init__(*arguments, **named)

    def _trigger_flush(self) -> None:
        with self._writing, self._sharing.alone():
            super()._trigger_flush()


class SafeLite(db.MilvusLite):  # type: ignore[misc]  # published without types
    """The databases of a folder; each collection is opened once."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._opening: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)
        super().__init__(*arguments, **named)

    def get_collection(self, name: str, database_name: str = db.DEFAULT_DATABASE_NAME) -> Any:
        """Return the collection, opened by whoever comes first."""
        with self._opening[database_name, name]:
            return super().get_collection(name, database_name=database_name)


def _reading(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def guarded(self: SafeCollection, *arguments: Any, **named: Any) -> Any:
        with self._sharing.shared():
            return method(self, *arguments, **named)

    return guarded


def _writing(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def guarded(self: SafeCollection, *arguments: Any, **named: Any) -> Any:
        with self._writing:
            return method(self, *arguments, **named)

    return guarded


for _name in READS:
    setattr(SafeCollection, _name, _reading(getattr(Collection, _name)))
for _name in WRITES:
    setattr(SafeCollection, _name, _writing(getattr(Collection, _name)))
db.Collection = SafeCollection
server.MilvusLite = SafeLite

if __name__ == "__main__":
    raise SystemExit(main())
