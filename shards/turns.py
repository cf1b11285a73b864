"""Sharing a pool of threads item by item between the calls that use it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_NO_ITEM: Any = object()


def in_turns(pool: Executor, work: Callable[[T], object], items: Iterable[T], *, threads: int) -> None:
    """Call `work` with every item in a pool of `threads` threads that others use too; return when all are done.

    After each item the next goes to the end of the pool's queue. So the calls under way take turns item by item, and
    one with a single item need not wait for one with hundreds. Raises what the first failing item raised.
    """
    calls = _Calls(pool, work, iter(items))
    # One more than there are threads, so that one is waiting when a thread becomes free.
    calls.start(threads + 1)
    calls.ended.result()


class _Calls(Generic[T]):
    """Chains of items; each link submits the next one."""

    def __init__(self, pool: Executor, work: Callable[[T], object], items: Iterator[T]) -> None:
        self.ended: Future[None] = Future()
        self._pool, self._work, self._items = pool, work, items
        self._lock = threading.Lock()
        self._chains = 0

    def start(self, chains: int) -> None:
        self._chains = chains
        for _ in range(chains):
            self._pool.submit(self._link)

    def _link(self) -> None:
        with self._lock:
            item = next(self._items, _NO_ITEM)
        if item is _NO_ITEM:
            self._end(None)
            return
        try:
            self._work(item)
            self._pool.submit(self._link)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the caller waits
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        with self._lock:
            self._chains -= 1
            if error is not None:
                self._items = iter(())
            if error is not None and not self.ended.done():
                self.ended.set_exception(error)
            if self._chains == 0 and not self.ended.done():
                self.ended.set_result(None)
